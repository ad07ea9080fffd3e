package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// lookUpTime bounds how long it is looked where a domain leads, to say why it failed.
const lookUpTime = 3 * time.Second

// The events of certmagic that an operator is told.
const (
	obtained = "cert_obtained"
	failed   = "cert_failed"
)

func told(event string) bool { return event == obtained || event == failed }

// event tells the operator of a certificate that came, or did not.
func (i *Issuer) event(ctx context.Context, event string, data map[string]any) error {
	domain, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch event {
	case obtained:
		i.log.Info("certificate obtained", "domain", domain, "renewal", renewal)
	case failed:
		err, _ := data["error"].(error)
		i.log.Error("certificate not obtained, another attempt follows", "domain", domain, "renewal", renewal, "why", i.explain(ctx, domain, err), "error", err)
	}
	return nil
}

// explain says what is wrong, and the way out.
func (i *Issuer) explain(ctx context.Context, domain string, err error) string {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return i.explainOwn(err)
	}
	if len(problem.Subproblems) > 0 {
		problem = problem.Subproblems[0].Problem
	}
	switch problem.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeTLS:
		return fmt.Sprintf("the authority does not reach %s on %s: forward %s and open the firewall%s", domain, i.ports(), i.targets(), i.found(ctx, domain))
	case acme.ProblemTypeDNS:
		return fmt.Sprintf("%s does not resolve for the authority: give it an A or AAAA record with the public address of this server%s", domain, i.found(ctx, domain))
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse:
		return fmt.Sprintf("what answers at %s on %s is not this server: its A and AAAA records must all lead here, and no proxy before it may speak TLS%s", domain, i.ports(), i.found(ctx, domain))
	case acme.ProblemTypeCAA:
		return fmt.Sprintf("a CAA record of %s forbids this authority: add it there, or choose another by tls.acme.directory", domain)
	case acme.ProblemTypeRateLimited:
		return "the authority allows no more attempts for some time; to try out a configuration, name its staging directory in tls.acme.directory"
	case acme.ProblemTypeRejectedIdentifier:
		return fmt.Sprintf("the authority gives nobody a certificate for %s: correct tls.acme.domains", domain)
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		return "the authority does not take the address of tls.acme.email"
	case acme.ProblemTypeExternalAccountRequired:
		return "this authority wants an account that was made elsewhere, which callserver does not support: choose another by tls.acme.directory"
	}
	return "the authority refuses"
}

// explainOwn is about what went wrong before the authority answered.
func (i *Issuer) explainOwn(err error) string {
	if _, ok := errors.AsType[*net.OpError](err); ok && strings.Contains(err.Error(), "listen") {
		return fmt.Sprintf("port %d is not free for the authority's question, or this user may not open it: free it, give the right (setcap cap_net_bind_service=+ep), or write tls.acme.http_port: off", i.httpPort())
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Sprintf("the authority at %s is not reached: check tls.acme.directory, tls.acme.ca_file, and that this machine gets out", i.options.Directory)
	}
	return "see the error"
}

func (i *Issuer) httpPort() int {
	if i.options.HTTPPort == 0 {
		return 80
	}
	return i.options.HTTPPort
}

// ports are those on which an authority looks (RFC 8555 §8.3, RFC 8737 §3).
func (i *Issuer) ports() string {
	if i.options.HTTPPort < 0 {
		return "TCP port 443"
	}
	return "TCP port 443 or 80"
}

// targets are where they must lead.
func (i *Issuer) targets() string {
	if i.options.HTTPPort < 0 {
		return "443 to http.listen"
	}
	return fmt.Sprintf("443 to http.listen, or 80 to port %d here,", i.httpPort())
}

// found says where the domain leads, as seen from here.
func (i *Issuer) found(ctx context.Context, domain string) string {
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	addresses, err := i.options.lookUp(ctx, domain)
	if err != nil || len(addresses) == 0 {
		return " (it does not resolve here)"
	}
	names := make([]string, len(addresses))
	for n, a := range addresses {
		names[n] = a.Unmap().String()
	}
	return " (here it resolves to " + strings.Join(names, ", ") + ")"
}
