package openai

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a multipart body beside its file.
const (
	fieldMax  = 4 << 10 // bytes of a field
	fieldsMax = 32      // fields, all told
)

// form is a multipart body that is read in the order in which it comes: a client may say what a file is before it or after.
type form struct {
	parts  *multipart.Reader
	fields map[string]string
}

// openForm checks what the headers say of a body.
func openForm(h http.Header, body io.Reader) (*form, error) {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, encoded(e)
	}
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || media != "multipart/form-data" {
		return nil, Invalid("", "", "send multipart/form-data, not %q", h.Get("Content-Type"))
	}
	if b := params["boundary"]; b == "" || len(b) > 70 { // 70 is RFC 2046's
		return nil, Invalid("", "", "the Content-Type has no boundary of 1 to 70 characters")
	}
	whole := io.MultiReader(body, strings.NewReader("\r\n"), broke{})
	return &form{parts: multipart.NewReader(whole, params["boundary"]), fields: map[string]string{}}, nil
}

// broke is what follows a body: only its last boundary is its end. The library would take a body that ends behind any
// other boundary for a whole one.
type broke struct{}

func (broke) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// encoded refuses a body that would have to be unpacked: a few bytes of it may be gigabytes, and whose digest is it?
func encoded(how string) error {
	e := Invalid("", "unsupported_content_encoding", "a file in Content-Encoding %q is not unpacked here: send its bytes as they are to be kept", how)
	e.Status = http.StatusUnsupportedMediaType
	return e
}

// read walks the body to its end. The part that is called name, of which there must be one, goes to take; the others are
// fields.
func (f *form) read(name string, take func(filename string, r io.Reader) error) error {
	taken := false
	for n := 0; ; n++ {
		part, err := f.parts.NextRawPart() // raw: quoted-printable would change a file's bytes
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err)
		}
		if n >= fieldsMax {
			return Invalid("", "", "more than fieldsMax of %d parts", fieldsMax)
		}
		switch field := part.FormName(); field {
		case "":
			return Invalid("", "", "a part has no name: it takes Content-Disposition: form-data; name=…")
		case name:
			if taken {
				return Invalid(name, "", "there are two parts called %s: send one at a time", name)
			}
			taken = true
			if e := part.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
				return encoded(e)
			}
			switch e := strings.ToLower(part.Header.Get("Content-Transfer-Encoding")); e {
			case "", "binary", "8bit", "7bit":
			default:
				return encoded(e)
			}
			if err := take(part.FileName(), part); err != nil {
				return broken(err)
			}
		default:
			if err := f.field(field, part); err != nil {
				return err
			}
		}
	}
	if !taken {
		return Invalid(name, "missing_required_parameter", "Missing required parameter: '%s'.", name)
	}
	return nil
}

func (f *form) field(name string, r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, fieldMax+1))
	switch {
	case err != nil:
		return broken(err)
	case len(b) > fieldMax:
		return Invalid("", "", "a field has more than fieldMax of %d bytes", fieldMax)
	}
	if _, twice := f.fields[name]; twice {
		return Invalid(name, "", "'%s' comes twice: send it once", name)
	}
	f.fields[name] = string(b)
	return nil
}

// broken says in a client's words why its body could not be read to its end; what this side says stays as it is.
func broken(err error) error {
	if fault.KindOf(err) != fault.Unknown {
		return err
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e := Invalid("", "", "nothing came for too long: send the file again")
		e.Status = http.StatusRequestTimeout
		return e
	}
	return Invalid("", "", "the multipart body broke off, and nothing of it is kept: %v", err)
}
