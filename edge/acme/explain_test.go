package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

func TestExplain(t *testing.T) {
	problem := func(kind string) error {
		return fmt.Errorf("solving challenges: %w", acme.Problem{Type: kind, Detail: "of the authority"})
	}
	for name, tc := range map[string]struct {
		err   error
		found string // where the name leads
		http  int
		want  []string
	}{
		"unreachable": {err: problem(acme.ProblemTypeConnection), found: "203.0.113.7",
			want: []string{"on TCP port 443 or 80", "forward 443 to http.listen, or 80 to port 80 here", "here it resolves to 203.0.113.7"}},
		"unreachable, without HTTP-01": {err: problem(acme.ProblemTypeTLS), found: "203.0.113.7", http: -1,
			want: []string{"on TCP port 443:", "forward 443 to http.listen and"}},
		"no name":        {err: problem(acme.ProblemTypeDNS), want: []string{"A or AAAA record", "it does not resolve here"}},
		"somewhere else": {err: problem(acme.ProblemTypeUnauthorized), found: "198.51.100.1", want: []string{"is not this server", "198.51.100.1"}},
		"CAA":            {err: problem(acme.ProblemTypeCAA), want: []string{"CAA record of call.example.org"}},
		"too often":      {err: problem(acme.ProblemTypeRateLimited), want: []string{"staging"}},
		"not that name":  {err: problem(acme.ProblemTypeRejectedIdentifier), want: []string{"tls.acme.domains"}},
		"bad address":    {err: problem(acme.ProblemTypeInvalidContact), want: []string{"tls.acme.email"}},
		"outer account":  {err: problem(acme.ProblemTypeExternalAccountRequired), want: []string{"tls.acme.directory"}},
		"anything else":  {err: problem(acme.ProblemTypeServerInternal), want: []string{"refuses"}},
		"in a subproblem": {err: acme.Problem{Type: acme.ProblemTypeCompound, Subproblems: []acme.Subproblem{{Problem: acme.Problem{Type: acme.ProblemTypeCAA}}}},
			want: []string{"CAA record"}},
		"not reached": {err: &url.Error{Op: "Get", URL: LetsEncrypt, Err: errors.New("refused")}, want: []string{LetsEncrypt, "tls.acme.directory"}},
		"port taken":  {err: &net.OpError{Op: "listen", Err: errors.New("permission denied")}, want: []string{"port 80", "tls.acme.http_port: off"}},
		"ours":        {err: errors.New("disk full"), want: []string{"see the error"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := &Issuer{options: Options{Directory: LetsEncrypt, HTTPPort: tc.http, lookUp: func(context.Context, string) ([]netip.Addr, error) {
				if tc.found == "" {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{netip.MustParseAddr(tc.found)}, nil
			}}}
			got := i.explain(t.Context(), "call.example.org", tc.err)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
		})
	}
}
