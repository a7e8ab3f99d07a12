package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// bearer is what the document calls the way in which keys are shown.
const bearer = "bearer"

// describeAccess says in the document which routes ask for a key, and how they refuse without a good one.
func describeAccess(doc *huma.OpenAPI) {
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{bearer: {Type: "http", Scheme: "bearer",
		Description: "An API key: Authorization: Bearer ag_…. A node that is alone on its machine may ask for none."}}
	problem := map[string]*huma.MediaType{wire.ProblemType: {Schema: doc.Components.Schemas.Schema(typeOf(wire.Problem{}), true, "")}}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			need := access.NeedOf(op.Method, path)
			if need.Anyone {
				continue
			}
			op.Security = []map[string][]string{{bearer: {}}}
			refused := problem
			if d := op.Responses["default"]; d != nil && len(d.Content) > 0 {
				refused = d.Content
			}
			for status, text := range map[string]string{"401": "No key, or none that is good: expired, revoked, of another cluster", "403": "The key may not: it needs " + needs(need)} {
				if r := op.Responses[status]; r != nil {
					r.Description = text
					continue
				}
				op.Responses[status] = &huma.Response{Description: text, Content: refused}
			}
		}
	}
}

func needs(n access.Need) string {
	if n.Operator {
		return "the role " + string(n.Role) + ", of the tenant default"
	}
	return "the role " + string(n.Role)
}
