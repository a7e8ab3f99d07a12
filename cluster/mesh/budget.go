package mesh

import "sync"

// budget bounds how many things there are at once and how many bytes they hold together.
type budget struct {
	countMax, bytesMax int

	mu           sync.Mutex
	count, bytes int // 0 <= count <= countMax, 0 <= bytes <= bytesMax
}

// take makes room for one more thing of n bytes, or tells that there is none.
func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count >= b.countMax || b.bytes+n > b.bytesMax {
		return false
	}
	b.count++
	b.bytes += n
	return true
}

// give returns what take took.
func (b *budget) give(n int) {
	b.mu.Lock()
	b.count--
	b.bytes -= n
	b.mu.Unlock()
}

// used returns how much is taken.
func (b *budget) used() (count, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count, b.bytes
}
