// Command outside-engine is an engine for tests whose OpenAI API is not ours: requests are read, and answers and errors
// written, by Ollama's own code; only the model behind it is replaced, by one that echoes.
//
//	our HTTP engine ──► /v1/chat/completions ──► ollama/middleware ──► echo ──► ollama/middleware ──► our HTTP engine
//
// So a mistake in how we read the API is not repeated on both sides. It is a module of its own, because the product
// needs nothing of what it needs.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/middleware"
)

func main() {
	port := flag.Int("port", 0, "`port` on 127.0.0.1")
	model := flag.String("model", "glm-outside", "`name` of the model")
	flag.Parse()
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	e := engine{*model}
	r.GET("/health", func(c *gin.Context) { c.Status(http.StatusOK) })
	r.GET("/v1/models", middleware.ListMiddleware(), e.list)
	r.POST("/v1/chat/completions", middleware.ChatMiddleware(), e.chat)
	s := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", *port), Handler: r, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(s.ListenAndServe())
}

// engine answers as Ollama's server does, without a model.
type engine struct{ model string }

func (e engine) list(c *gin.Context) {
	c.JSON(http.StatusOK, api.ListResponse{Models: []api.ListModelResponse{{Name: e.model, Model: e.model, ModifiedAt: time.Now()}}})
}

func (e engine) chat(c *gin.Context) {
	var req api.ChatRequest
	if err := c.ShouldBindJSON(&req); err != nil {
		c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
		return
	}
	if req.Model != e.model {
		c.JSON(http.StatusNotFound, gin.H{"error": fmt.Sprintf("model '%s' not found", req.Model)})
		return
	}
	answer := api.ChatResponse{Model: req.Model, CreatedAt: time.Now(), Done: true, DoneReason: "stop"}
	answer.Message = api.Message{Role: "assistant", Content: req.Messages[len(req.Messages)-1].Content}
	answer.PromptEvalCount, answer.EvalCount = 1+len(req.Messages), 1+len(answer.Message.Content)/4
	c.JSON(http.StatusOK, answer)
}
