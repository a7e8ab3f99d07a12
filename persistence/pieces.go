package persistence

// A body, the data of a row or the state of a snapshot, is in its row while it is small, and beside it in pieces when
// it is not: Badger takes two to three times the bytes of a table in memory while it builds it, of large values more than four times.
//
//	0 … bodyWhole … bodyMax … WriteMax
//	 row │ pieces in  │ pieces in transactions
//	     │ the row's  │ before that
//	     │ transaction│
//
// The row says how many pieces there are. How long they are each version may choose for itself, up to bodyMax and
// piecesMax: all read what any of them wrote. So replicas of one log differ in it, and nothing that an entry does or answers
// may depend on it.
const (
	bodyWhole = EraseBody // bytes of a body that stays in its row, in every version: replicas tell by it what may be erased
	pieceMin  = 8 << 10   // bytes; with its key it fits twice the block that Badger begins with
	piecesMax = 32        // of a body; earlier versions read one more, and as pieces of bodyMax
	bodyMax   = 256 << 10 // bytes of a piece, and of a body that has room in the row's transaction; WriteMax = piecesMax * bodyMax
	nameShare = 64        // a piece is at least so many times as long as the names in its key, which so take less than a share of this
)

// pieceSize returns the bytes of each piece of a body, the last one perhaps less; 0: it stays in its row. name is the length
// of kind and id.
func pieceSize(body, name int) int {
	size := max(pieceMin, (body+piecesMax-1)/piecesMax, min(nameShare*name, bodyMax))
	if body <= max(bodyWhole, size) {
		return 0
	}
	return size
}

// bodyCost bounds what a body takes of the transaction of its row, as Write.inline does for the rest.
func bodyCost(body, name int) int {
	size := pieceSize(body, name)
	if size == 0 || body > bodyMax {
		return min(body, bodyMax)
	}
	return body + (body+size-1)/size*(name+rowCost)
}
