// Package source hides how the data behind a data_url is had without trusting the URL, the server,
// or the bytes.
//
//	http(s) ──► egress: address checked at each dial, redirects too ─┐
//	file    ──► os.Root of an allowed directory: no symlink leaves   ├─► at most SizeMax bytes
//	            it; a regular file, or nothing is opened             ─┘        │
//	                                     text? charset → UTF-8, JSON parses ◄──┘
//	                                              │
//	             Data{Text, MediaType, SHA256, Bytes} ──► Compose: fenced, after the prompt
//
// Nothing is believed that can be checked: not Content-Length (only to refuse earlier), not the
// media type (the bytes must be text), and a compressed body is refused, as none was asked for.
//
// Left to others: whether the text fits the model, and when to try again (the fault's Kind says).
package source
