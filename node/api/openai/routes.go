package openai

import (
	"log/slog"
	"net/http"
	"time"
)

// Deps is what the routes stand on. A nil part has no routes.
type Deps struct {
	Completions Completions
	Files       Files // and uploads
	Batches     Batches

	Log          *slog.Logger
	BodyMax      int64                              // bytes of a JSON body
	ReadTimeout  time.Duration                      // of a JSON body
	StreamIdle   time.Duration                      // a file that is sent is given up when nothing comes for so long
	WriteTimeout time.Duration                      // for a client to take one piece of a file
	Hold         func() (release func(), err error) // a token for a request that waits; nil: no limit
	Closing      <-chan struct{}                    // closed when the server stops: what waits ends
}

// server has the handlers; its nouns' are in files of their own.
type server struct{ Deps }

// Routes adds the routes of the parts that are there.
func Routes(mux *http.ServeMux, d Deps) {
	s := &server{d}
	if d.Completions != nil {
		s.completionRoutes(mux)
	}
	if d.Files != nil {
		s.fileRoutes(mux)
		s.uploadRoutes(mux)
	}
	if d.Batches != nil {
		s.batchRoutes(mux)
	}
}
