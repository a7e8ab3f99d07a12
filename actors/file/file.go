package file

import (
	"context"
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of a file.
const KindName = "file"

// Key is the key of a file's journal.
func Key(id string) persistence.Key { return persistence.Key{Kind: KindName, ID: id} }

// Status is where a file stands. The empty one is "no such file".
type Status string

// The states; doc.go draws them.
const (
	None      Status = ""
	Uploading Status = "uploading"
	Processed Status = "processed" // whole, and seen
	Deleted   Status = "deleted"   // final; its bytes go
)

// The purposes that a client may name, and that of a batch's output.
const (
	PurposeBatch  = "batch"
	PurposeOutput = "batch_output"
)

var purposes = []string{"assistants", PurposeBatch, "evals", "fine-tune", "user_data", "vision"}

// Info is what is known of a file.
type Info struct {
	ID        string     `json:"id"`
	Filename  string     `json:"filename"`
	Purpose   string     `json:"purpose,omitempty"` // uploading: not known yet
	Bytes     int64      `json:"bytes"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt time.Time  `json:"expires_at,omitzero"` // zero: never
	Status    Status     `json:"status"`
	SHA256    string     `json:"sha256,omitempty"`  // hexadecimal; "": made of parts
	MD5       string     `json:"md5,omitempty"`     // hexadecimal
	Content   []blob.Ref `json:"content,omitempty"` // one behind the other
	Of        *Output    `json:"of,omitempty"`      // rendered when it is read; Content is empty
	Growing   bool       `json:"-"`                 // the batch was asked for Bytes, and may go on
}

// Output says which part of which batch a file is.
type Output struct {
	Batch string `json:"batch"`
	Part  string `json:"part"`
}

// The parts of a batch that are files.
const (
	PartOutput = "output"
	PartError  = "error"
)

// Limits of what a client may name.
const (
	FilenameMax = 255 // bytes
	ExpiresMin  = time.Hour
	ExpiresMax  = 30 * 24 * time.Hour
)

// anonymous is the name of a file that has none, as the clients of OpenAI have it.
const anonymous = "anonymous_file"

// Filename makes a name out of what a client sent: its last element, without what a terminal or a file system could take
// for something else.
func Filename(s string) string {
	s = s[strings.LastIndexAny(s, `/\`)+1:]
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	for len(s) > FilenameMax {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	if s == "" || s == "." || s == ".." {
		return anonymous
	}
	return s
}

// newID makes an id that starts with a prefix, of the tenant that ctx is for.
func newID(ctx context.Context, prefix string) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fault.New(fault.Unavailable, "file.create", "", "no id could be made: %w", err)
	}
	return tenant.Own(ctx, prefix+hex.EncodeToString(id[:])), nil
}
