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

// QuotaUse is what a tenant has in the cluster now.
type QuotaUse struct {
	Running int `json:"running"`
	Waiting int `json:"waiting"`
	Bytes   int `json:"bytes" doc:"Kept by tasks and files that a version that counts them took in."`
}
