package result

import (
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// What a row group holds at most: it is in memory until it is written.
const (
	groupRows  = 50_000
	groupBytes = 16 << 20 // of texts; the last row may be more
)

// Parquet writes rows as a Parquet file, compressed with zstd. The file can be read once Close has written its footer.
type Parquet struct {
	w     *parquet.GenericWriter[Row]
	rows  int
	bytes int
}

// NewParquet writes to w.
func NewParquet(w io.Writer) *Parquet {
	return &Parquet{w: parquet.NewGenericWriter[Row](w, parquet.Compression(&zstd.Codec{}), parquet.CreatedBy("autoglm", "", ""))}
}

// Write writes one row, and the row group when it is full.
func (p *Parquet) Write(r *Row) error {
	if _, err := p.w.Write([]Row{*r}); err != nil {
		return err
	}
	p.rows++
	p.bytes += r.Size()
	if p.rows < groupRows && p.bytes < groupBytes {
		return nil
	}
	p.rows, p.bytes = 0, 0
	return p.w.Flush()
}

// Close writes the rest and the footer.
func (p *Parquet) Close() error { return p.w.Close() }

// Size is about how much memory a row takes, in bytes.
func (r *Row) Size() int {
	return 256 + len(r.TaskID) + len(r.BatchID) + len(r.CustomID) + len(r.Model) + len(r.Prompt) + len(r.Answer) + len(r.ErrorMessage) + len(r.Metadata) + len(r.Response)
}
