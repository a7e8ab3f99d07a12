package wire

import "github.com/open-autoglm/autoglm/actors/quota"

// Quotas answers GET /v1/quotas.
type Quotas struct {
	Quotas []Quota `json:"quotas"`
}

// Quota is what a tenant may have, and has.
type Quota struct {
	quota.Terms
	Used QuotaUse `json:"used"`
}

// QuotaSet is quotas of several tenants, to be set together.
type QuotaSet struct {
	Quotas []quota.Terms `json:"quotas" minItems:"1" maxItems:"256" nullable:"false"`
}

// QuotaUse is what a tenant has in the cluster now.
type QuotaUse struct {
	Running  int `json:"running"`
	Waiting  int `json:"waiting"`
	Tokens   int `json:"tokens" doc:"Of tokens_per_minute, used up now; what a task took more than was thought may make it more than there is."`
	Requests int `json:"requests" doc:"Of requests_per_minute, used up now."`
	Bytes    int `json:"bytes" doc:"Kept by tasks and files that a version that counts them took in."`
}
