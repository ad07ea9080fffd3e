package rtc

import (
	"testing"
	"time"
)

// TestCertificates has one certificate for the connections of a day, which does not expire while it is in use.
func TestCertificates(t *testing.T) {
	var all certificates
	now := time.Now()
	of := func(at time.Time) string {
		c, err := all.at(at)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Expires().After(at.Add(certificateAge)) {
			t.Errorf("expires at %v: not long after %v", c.Expires(), at)
		}
		prints, err := c.GetFingerprints()
		if err != nil {
			t.Fatal(err)
		}
		return prints[0].Value
	}
	first := of(now)
	if of(now.Add(certificateAge-1)) != first {
		t.Error("two connections of one day have different ones")
	}
	if of(now.Add(certificateAge)) == first {
		t.Error("connections of two days have the same one")
	}
}

// BenchmarkCertificates is the certificate of one more connection.
func BenchmarkCertificates(b *testing.B) {
	var all certificates
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := all.at(now); err != nil {
			b.Fatal(err)
		}
	}
}
