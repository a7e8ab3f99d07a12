package dest

import (
	"bytes"
	"context"
	"net/http"
	"path"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// bucket writes each batch as an object with one PUT, which such stores take whole or not at all. That is all that is needed of S3, so it
// is the SDK itself rather than a library over several stores.
type bucket struct {
	client *s3.Client
	name   string
	prefix string
	format string
	http   *http.Transport
}

func openS3(ctx context.Context, t *sink.Target, d *sink.Definition, secret string) (sink.Destination, error) {
	tr := &http.Transport{TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true} // no proxy: the host is the one that was allowed
	client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	o := s3.Options{
		Region: t.Region, BaseEndpoint: &t.Endpoint, UsePathStyle: true, HTTPClient: client, Retryer: aws.NopRetryer{}, // the driver tries again, and says so
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired, // newer ones than MD5 are not known to all such stores
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		Credentials:                credentials.NewStaticCredentialsProvider(t.User, secret, ""),
	}
	if t.User == "" {
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion(t.Region))
		if err != nil {
			return nil, fault.New(fault.Unavailable, "sink.open", "s3", "the node's own credentials cannot be read: %w", err)
		}
		o.Credentials = c.Credentials
	}
	return &bucket{client: s3.New(o), name: t.Bucket, prefix: t.Path, format: d.Format, http: tr}, nil
}

// Write puts one object.
func (b *bucket) Write(ctx context.Context, object string, batch []sink.Item) error {
	body, err := encode(b.format, batch)
	if err != nil {
		return fault.New(fault.Unknown, "sink.write", object, "it cannot be encoded: %w", err)
	}
	key := path.Join(b.prefix, object+"."+b.format)
	_, err = b.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.name, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String(mediaTypes[b.format])})
	if err != nil {
		return unavailable("s3://"+b.name+"/"+key, err)
	}
	return nil
}

// Close ends idle connections.
func (b *bucket) Close() error {
	b.http.CloseIdleConnections()
	return nil
}
