package wire

import "time"

// Key is an API key, without its secret.
type Key struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Tenant    string     `json:"tenant"`
	Role      string     `json:"role" enum:"read,submit,admin"`
	Rate      float64    `json:"rate,omitempty" doc:"Requests a second that one node takes; absent: no limit of its own."`
	State     string     `json:"state" enum:"active,expired,revoked"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by,omitempty" doc:"Id of the key that made it."`
	RotatedAt *time.Time `json:"rotated_at,omitempty"`
	OldUntil  *time.Time `json:"old_until,omitempty" doc:"The secret before the rotation is good until then."`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// NewKey is a key with its secret, which is shown this once.
type NewKey struct {
	Key
	Secret string `json:"key" doc:"The key itself, for Authorization: Bearer. It is shown now and never again."`
}

// KeyWish says what a new key is to be.
type KeyWish struct {
	Name      string  `json:"name" maxLength:"64" doc:"For people."`
	Role      string  `json:"role" enum:"read,submit,admin" doc:"read sees, submit also submits and cancels, admin also manages keys and sinks."`
	Tenant    string  `json:"tenant,omitempty" doc:"Whose it is; your own when empty. Only the operator makes keys of other tenants; the first one makes the tenant."`
	Rate      float64 `json:"rate,omitempty" minimum:"0" doc:"Requests a second that one node takes; 0: no limit of its own."`
	ExpiresIn string  `json:"expires_in,omitempty" doc:"Like 720h; empty: never."`
}

// KeyRotation says how a key is rotated.
type KeyRotation struct {
	KeepOldFor string `json:"keep_old_for,omitempty" doc:"How long the secret before goes on being good, like 24h; empty: not at all."`
}

// Keys is a page of keys, the newest first.
type Keys struct {
	Keys    []Key `json:"keys"`
	HasMore bool  `json:"has_more" doc:"Ask again with after=ID of the last one."`
}

// Audit is a page of what administrators did, the newest first.
type Audit struct {
	Entries []AuditEntry `json:"entries"`
	HasMore bool         `json:"has_more" doc:"Ask again with after=ID of the last one."`
}

// AuditEntry is one act.
type AuditEntry struct {
	ID        string     `json:"id"`
	At        time.Time  `json:"at"`
	Tenant    string     `json:"tenant" doc:"Of who did it."`
	About     string     `json:"about,omitempty" doc:"The tenant that it concerns, when that is another one."`
	By        string     `json:"by" doc:"Id of the key; anonymous on a node that is open."`
	Remote    string     `json:"remote,omitempty"`
	Act       string     `json:"act"`
	Object    string     `json:"object,omitempty"`
	Detail    string     `json:"detail,omitempty"`
	RequestID string     `json:"request_id,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty" doc:"Absent: cut off; it may have been done."`
	Error     string     `json:"error,omitempty" doc:"Why it was not done."`
}

// CallbackSecret is what a tenant's callbacks are signed with.
type CallbackSecret struct {
	Tenant string `json:"tenant"`
	Secret string `json:"secret" doc:"For the verifying library of Standard Webhooks: whsec_ and base64."`
}

// Caller is who the node takes the client for.
type Caller struct {
	Key    string `json:"key,omitempty" doc:"Id of the key; absent on a node that is open."`
	Name   string `json:"name,omitempty"`
	Tenant string `json:"tenant"`
	Role   string `json:"role"`
}
