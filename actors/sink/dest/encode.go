package dest

import (
	"bytes"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/sink"
)

// encode makes an object of a batch: the same batch is the same bytes.
func encode(format string, batch []sink.Item) ([]byte, error) {
	var b bytes.Buffer
	switch format {
	case sink.FormatCSV:
		w := result.NewCSV(&b)
		err := w.Header()
		for i := range batch {
			if err == nil {
				err = w.Write(&batch[i].Row)
			}
		}
		if err == nil {
			err = w.Flush()
		}
		return b.Bytes(), err
	case sink.FormatParquet:
		w := result.NewParquet(&b)
		for i := range batch {
			if err := w.Write(&batch[i].Row); err != nil {
				return nil, err
			}
		}
		err := w.Close()
		return b.Bytes(), err
	}
	for i := range batch {
		b.Write(batch[i].JSON)
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

var mediaTypes = map[string]string{sink.FormatJSONL: "application/x-ndjson", sink.FormatCSV: "text/csv; charset=utf-8", sink.FormatParquet: "application/vnd.apache.parquet"}
