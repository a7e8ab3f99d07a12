package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// QuotaReport is what RunQuota found.
type QuotaReport struct {
	Report
	Limit int     // running tasks that the quota allows
	Most  int     // that were at the engine at once
	Seen  int     // Most, with those that were broken off and the engine had not noticed
	Mean  float64 // over the time of all faults
}

// String is the report in some lines.
func (r *QuotaReport) String() string {
	return fmt.Sprintf("quota of %d running tasks: at most %d at once (%d with requests that were just broken off), %.1f on average\n", r.Limit, r.Most, r.Seen, r.Mean) + r.Report.String()
}

// quotaKnown is more than it takes until all nodes know of a first quota.
const quotaKnown = 8 * time.Second

// RunQuota is Run with a quota of running tasks on the tenant of all clients, and one engine for all nodes that counts: more at once than the
// quota allows is a violation, whatever breaks.
func RunQuota(ctx context.Context, o Options, limit int) (*QuotaReport, error) {
	dir, err := os.MkdirTemp("", "crowd-") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := newCrowd(filepath.Join(dir, "s"))
	if err != nil {
		return nil, err
	}
	defer c.close()
	o.Engine = "unix://" + c.path
	r, order, err := form(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.setQuota(ctx, quota.Limits{Running: limit}); err != nil {
		return nil, err
	}
	if err := r.env.hold(ctx, quotaKnown); err != nil {
		return nil, err
	}
	load := StartWorkload(r.peers(), r.rec, r.o.Clients, r.o.Think, r.o.Seed)
	defer load.Stop()
	from := time.Now()
	if err := r.breakAll(ctx, order); err != nil {
		return nil, err
	}
	report := &QuotaReport{Limit: limit}
	stays, took := c.all(from)
	report.Mean = mean(stays, took)
	load.Stop()
	r.judge(ctx, load)
	stays, _ = c.all(from)
	report.Seen, _ = peak(stays, 0)
	var who []stay
	if report.Most, who = peak(stays, noticeMax); report.Most > limit {
		r.wrong("", "%d tasks were at the engine at once, and the quota is %d: %v", report.Most, limit, who)
	}
	report.Report = *r.report
	return report, ctx.Err()
}

func (r *runner) setQuota(ctx context.Context, l quota.Limits) error {
	body, err := json.Marshal(quota.Terms{Tenant: tenant.Default, Hard: l})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.SettleMax)
	defer cancel()
	for { // a cluster that has just formed may still be telling its nodes what all of them know
		status, answer, err := r.env.http.do(ctx, http.MethodPut, r.peers()[0].URL+"/v1/quotas/"+tenant.Default, body)
		if err == nil && status/100 == 2 {
			return nil
		}
		if herr := r.env.hold(ctx, lookEvery); herr != nil {
			return fmt.Errorf("the quota cannot be set: %d %s: %v", status, cut(answer), err)
		}
	}
}
