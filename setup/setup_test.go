package setup

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"callserver/signalling/homeserver"
)

// example is what the defaults make of example.org.
func example() Site {
	return Site{
		ServerName: "example.org", Homeserver: "synapse", ClientAPI: "https://matrix.example.org", HomeserverURL: "http://127.0.0.1:8008",
		PublicURL: "https://call.example.org", Proxy: "nginx", Wide: true, Listen: "127.0.0.1:7880", Directory: "/etc/callserver",
		ServicePath: "/livekit/jwt", SFUPath: "/livekit/sfu",
	}
}

func files(t *testing.T, s Site) map[string]string {
	t.Helper()
	made, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range made {
		if !slices.Contains(FileNames(), f.Name) {
			t.Errorf("%s is not in FileNames", f.Name)
		}
		texts[f.Name] = string(f.Text)
	}
	return texts
}

// snippets are the fenced blocks of a text by their titles ("yaml homeserver.yaml").
func snippets(text string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		found[m[1]] = m[2]
	}
	return found
}

// TestEveryCombination: each homeserver with each proxy gives steps without holes, and snippets that are what they say.
func TestEveryCombination(t *testing.T) {
	for _, server := range Homeservers {
		for _, proxy := range Proxies {
			s := example()
			s.Homeserver, s.Proxy, s.Wide = server, proxy, proxy != "other"
			texts := files(t, s)
			steps := texts[StepsFile]
			if strings.Contains(steps, "@_callserver:example.org") == s.Wide {
				t.Errorf("%s, %s: whom to invite, with wide %v:\n%s", server, proxy, s.Wide, steps)
			}
			if strings.Contains(steps, "<no value>") || strings.Contains(steps, "\n\n\n") || strings.Contains(steps, " \n") {
				t.Errorf("%s, %s: holes in\n%s", server, proxy, steps)
			}
			if !strings.Contains(steps, "https://call.example.org/livekit/jwt") || !strings.Contains(steps, "rtc/(transports$|livekit/)") {
				t.Errorf("%s, %s: no service or no paths in\n%s", server, proxy, steps)
			}
			for title, text := range snippets(steps) {
				var tree map[string]any
				language, _, _ := strings.Cut(title, " ")
				if language != "yaml" && language != "json" {
					continue
				}
				if err := yaml.Unmarshal([]byte(text), &tree); err != nil || len(tree) == 0 {
					t.Errorf("%s, %s: %s: %v\n%s", server, proxy, title, err, text)
				}
			}
		}
	}
}

// TestSecretsStayInTheirFiles: each is fresh, and only where it belongs.
func TestSecretsStayInTheirFiles(t *testing.T) {
	secret := regexp.MustCompile(`[0-9a-f]{64}|[A-Z2-7]{52}`)
	one, two := files(t, example()), files(t, example())
	for name, count := range map[string]int{ConfigurationFile: 0, StepsFile: 0, KeysFile: 1, NarrowFile: 2, WideFile: 2} {
		found := secret.FindAllString(one[name], -1)
		if len(found) != count {
			t.Errorf("%s holds %d secrets, want %d", name, len(found), count)
		}
		for _, s := range found {
			for other, text := range two {
				if strings.Contains(text, s) {
					t.Errorf("a secret of %s is in the second installation's %s", name, other)
				}
			}
		}
	}
}

func TestRegistrations(t *testing.T) {
	for _, tc := range []struct {
		name  string
		site  func(*Site)
		files []string
		push  string
	}{
		{"on one machine", func(*Site) {}, []string{NarrowFile, WideFile}, "http://127.0.0.1:7880"},
		{"narrow only", func(s *Site) { s.Wide = false }, []string{NarrowFile}, "http://127.0.0.1:7880"},
		{"homeserver elsewhere", func(s *Site) { s.HomeserverURL = "http://10.0.0.5:8008" }, []string{NarrowFile, WideFile}, "https://call.example.org"},
		{"every address", func(s *Site) { s.Listen = ":9000"; s.HomeserverURL = "http://localhost:8008" }, []string{NarrowFile, WideFile}, "http://127.0.0.1:9000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := example()
			tc.site(&s)
			texts := files(t, s)
			if _, wide := texts[WideFile]; wide != slices.Contains(tc.files, WideFile) {
				t.Errorf("wide registration: %v", wide)
			}
			var c struct {
				Homeservers []struct{ Registration []string }
			}
			if err := yaml.Unmarshal([]byte(texts[ConfigurationFile]), &c); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.files, c.Homeservers[0].Registration); diff != "" {
				t.Errorf("callserver.yaml names (-want +got)\n%s", diff)
			}
			for _, name := range tc.files {
				r, err := homeserver.ParseRegistration([]byte(texts[name]))
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(texts[StepsFile], "/etc/callserver/"+name) {
					t.Errorf("the steps do not name %s", name)
				}
				switch {
				case name == WideFile && (r.URL != nil || r.Ephemeral || r.RateLimited || r.Namespaces.Users[0].Exclusive):
					t.Errorf("the wide registration reads %+v", r)
				case name == NarrowFile && (r.URL == nil || *r.URL != tc.push || r.ProxyURL != tc.push || r.ProxyPrefix != "rtc/livekit"):
					t.Errorf("the homeserver reaches callserver at %v and %q, want %s", r.URL, r.ProxyURL, tc.push)
				}
			}
		})
	}
}

// TestDirect: a homeserver that is reached without its proxy is asked there who a user is.
func TestDirect(t *testing.T) {
	s := example()
	if text := files(t, s)[ConfigurationFile]; !strings.Contains(text, "    federation: http://127.0.0.1:8008\n") {
		t.Errorf("direct:\n%s", text)
	}
	s.HomeserverURL = s.ClientAPI
	if text := files(t, s)[ConfigurationFile]; strings.Contains(text, "federation:") {
		t.Errorf("by the proxy:\n%s", text)
	}
}

// TestNamesThatYAMLReadsOtherwise: a server name is an address as well, which YAML takes for a list.
func TestNamesThatYAMLReadsOtherwise(t *testing.T) {
	for _, name := range []string{"[2001:db8::1]:8448", "192.0.2.1", "localhost:8448", "0x10", "null"} {
		if _, err := CheckServerName(name); err != nil {
			t.Errorf("%v", err)
			continue
		}
		s := example()
		s.ServerName = name
		var c struct {
			Homeservers []struct {
				ServerName string `yaml:"server_name"`
			}
		}
		text := files(t, s)[ConfigurationFile]
		if err := yaml.Unmarshal([]byte(text), &c); err != nil || c.Homeservers[0].ServerName != name {
			t.Errorf("%s became %+v, %v", name, c, err)
		}
	}
}

func TestChecks(t *testing.T) {
	choice := CheckChoice(Proxies)
	for _, tc := range []struct {
		check      func(string) (string, error)
		give, want string // want "" = refused
	}{
		{CheckServerName, "example.org", "example.org"},
		{CheckServerName, "example.org:8448", "example.org:8448"},
		{CheckServerName, "[::1]:8448", "[::1]:8448"},
		{CheckServerName, "@alice:example.org", ""},
		{CheckServerName, "https://example.org", ""},
		{CheckServerName, "example.org:https", ""},
		{CheckServerName, "exa mple.org", ""},
		{CheckServerName, "a\nb", ""},
		{CheckURL, "https://matrix.example.org/", "https://matrix.example.org"},
		{CheckURL, "http://127.0.0.1:8008", "http://127.0.0.1:8008"},
		{CheckURL, "matrix.example.org", ""},
		{CheckURL, "ftp://example.org", ""},
		{CheckURL, "https://me:secret@example.org", ""},
		{CheckURL, "https://example.org/`id`", ""},
		{CheckURL, "https://example.org/;}", ""},
		{CheckURL, "https://:443", ""},
		{CheckPublicURL, "https://call.example.org:8443/", "https://call.example.org:8443"},
		{CheckPublicURL, "https://example.org/calls", ""},
		{CheckAddresses, "203.0.113.7,2001:db8::7", "203.0.113.7, 2001:db8::7"},
		{CheckAddresses, "example.org", ""},
		{CheckAddresses, "0.0.0.0", ""},
		{CheckListen, "127.0.0.1:7880", "127.0.0.1:7880"},
		{CheckListen, "7880", ""},
		{choice, "Nginx", "nginx"},
		{choice, "apache", ""},
		{CheckYes, "Y", "yes"},
		{CheckYes, "no", "no"},
		{CheckYes, "perhaps", ""},
	} {
		got, err := tc.check(tc.give)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%q gives %q, %v; want %q", tc.give, got, err, tc.want)
		}
	}
}

// TestPlainHTTP: what is reached without TLS is listened for without TLS.
func TestPlainHTTP(t *testing.T) {
	s := example()
	s.PublicURL = "http://localhost:8081"
	steps, err := s.Steps()
	if err != nil {
		t.Fatal(err)
	}
	block := snippets(steps)["nginx localhost"]
	if !strings.Contains(block, "listen 8081;") || strings.Contains(block, "ssl") {
		t.Errorf("nginx:\n%s", block)
	}
	if !strings.Contains(steps, "ws://localhost:8081/livekit/sfu") {
		t.Errorf("no websocket URL without TLS in\n%s", steps)
	}
}
