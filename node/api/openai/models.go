package openai

import (
	"net/http"
)

// model is a model as OpenAI lists it.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (s *server) modelOf(id string) model {
	return model{ID: id, Object: "model", Created: s.Started.Unix(), OwnedBy: "open-autoglm"}
}

func (s *server) models(w http.ResponseWriter, r *http.Request) {
	list := []model{}
	for _, name := range s.Completions.ServedModels(r.Context()) {
		list = append(list, s.modelOf(name))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *server) model(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	if err := s.Completions.CheckModel(r.Context(), name); err != nil || name == "" {
		e := NotFound("model", "The model '%s' does not exist.", name)
		e.Code = some("model_not_found")
		s.fail(w, r, e)
		return
	}
	writeJSON(w, http.StatusOK, s.modelOf(name))
}
