package arch

// everything stands in an import list for the whole module.
const everything = "..."

// allowed lists, for each package, the packages of this module that it may import. Packages that do not exist yet have
// their line already, so that the first file of one starts inside the map.
var allowed = map[string][]string{
	"cmd/callserver": {everything},

	"sfu/packet":          {},
	"sfu/prefetch":        {},
	"sfu/codec":           {},
	"sfu/bandwidth":       {},
	"sfu/load":            {},
	"sfu/framecrypto":     {},
	"sfu/udp":             {},
	"sfu/forward":         {"sfu/packet", "sfu/codec", "sfu/prefetch"},
	"sfu/frame":           {"sfu/codec", "sfu/packet"},
	"sfu/relay":           {"sfu/forward", "sfu/packet", "sfu/codec", "sfu/frame", "sfu/framecrypto"},
	"sfu":                 {"sfu/forward", "sfu/packet", "sfu/codec", "sfu/bandwidth"},
	"sfu/rtc":             {"sfu/forward", "sfu/packet", "sfu/prefetch", "sfu/codec", "sfu/bandwidth", "sfu/framecrypto", "sfu/srtp", "sfu/ingress", "sfu/egress", "sfu/rtc/description", "sfu/rtc/port", "internal/pionlog"},
	"sfu/rtc/description": {},
	"sfu/rtc/port":        {"sfu/packet", "sfu/udp"},
	"sfu/srtp":            {"sfu/prefetch"},
	"sfu/ingress":         {"sfu/packet", "sfu/srtp", "sfu/bandwidth"},
	"sfu/egress":          {"sfu/forward", "sfu/bandwidth", "sfu/prefetch", "sfu/srtp", "sfu/udp"},

	"signalling/token":        {},
	"signalling/token/ledger": {"signalling/token"},
	"signalling":              {"sfu", "sfu/rtc", "sfu/forward", "sfu/packet", "sfu/codec", "sfu/framecrypto", "sfu/relay", "signalling/token", "internal/expiring", "cluster", "timeline"},

	// Edges translate between a protocol and Session. They see the room's words (sfu) and never each other.
	"signalling/livekit":    {"signalling", "signalling/token", "sfu", "sfu/codec", "cluster", "timeline"},
	"signalling/homeserver": {},
	"signalling/federation": {"internal/expiring", "internal/canonical", "internal/internet"},
	"signalling/matrixrtc":  {"signalling", "signalling/token", "signalling/homeserver", "signalling/federation", "signalling/matrixrtc/member", "signalling/matrixrtc/leave", "signalling/matrixrtc/roster", "signalling/matrixrtc/standing", "sfu", "timeline", "internal/expiring", "internal/canonical"},
	"signalling/matrix":     {"signalling", "signalling/token", "signalling/homeserver", "signalling/matrixrtc/member", "signalling/matrixrtc/standing", "signalling/matrix/device", "signalling/matrix/mediakeys", "signalling/matrix/courier", "sfu", "sfu/framecrypto", "timeline", "internal/expiring"},
	// The parts of calls by Matrix's older events: what they say, and who is in the room's call in their place.
	"signalling/matrix/call":        {},
	"signalling/matrix/standin":     {"signalling/token", "signalling/homeserver", "signalling/matrixrtc/leave", "signalling/matrixrtc/member"},
	"signalling/matrix/switchboard": {"signalling", "signalling/token", "signalling/homeserver", "signalling/matrix/call", "signalling/matrix/standin", "signalling/matrix/courier", "signalling/matrix/mediakeys", "signalling/matrixrtc/member", "signalling/matrixrtc/standing", "sfu", "internal/expiring"},
	// The bot's encryption: a device with its keys, and which media keys it gives to whom, and has of whom.
	"signalling/matrix/device":    {"signalling/homeserver"},
	"signalling/matrix/mediakeys": {},
	"signalling/matrix/courier":   {"signalling/matrix/device", "signalling/matrix/mediakeys"},
	// The parts of the authoriser below it: what a member is, and how its membership ends.
	"signalling/matrixrtc/member":   {"internal/canonical"},
	"signalling/matrixrtc/clerk":    {},
	"signalling/matrixrtc/leave":    {"signalling/homeserver", "signalling/matrixrtc/clerk", "signalling/matrixrtc/member"},
	"signalling/matrixrtc/roster":   {"signalling/homeserver", "signalling/matrixrtc/clerk", "signalling/matrixrtc/member"},
	"signalling/matrixrtc/standing": {"signalling/homeserver", "signalling/token", "internal/expiring"},
	"signalling/whip":               {"signalling", "signalling/token", "sfu", "sfu/codec", "timeline"},

	"turn/path": {"sfu/packet", "sfu/udp"}, // below the server, beside the media ports, to which it hands packets by an interface
	"turn":      {"turn/path", "internal/expiring", "internal/internet", "internal/pionlog"},
	"edge":      {},
	"cluster":   {},
	"timeline":  {},
	"web":       {"timeline", "signalling/token"},
	"doctor":    {"signalling/token"},
	"setup":     {"signalling/token", "signalling/homeserver"},
	"bench":     {"sfu/packet", "sfu/codec", "signalling/token"},

	// Certificates are shown by edge, which does not care who issued them.
	"edge/acme": {},

	"internal/config":             {},
	"internal/expiring":           {},
	"internal/canonical":          {},
	"internal/internet":           {},
	"internal/pionlog":            {},
	"internal/telemetry":          {},
	"internal/arch":               {},
	"internal/testnet/realserver": {"signalling/homeserver"},
	"internal/testnet/fakeserver": {"signalling/homeserver"},
	"internal/testnet/pebble":     {},
	"internal/testnet":            {"sfu", "sfu/forward", "sfu/packet", "sfu/codec", "signalling", "signalling/token"},
}

// passive packages contain no go statement, socket or clock.
var passive = []string{
	"sfu", "sfu/forward", "sfu/packet", "sfu/codec", "sfu/bandwidth", "sfu/load", "sfu/frame", "sfu/framecrypto", "sfu/relay", "sfu/srtp", "sfu/ingress", "sfu/rtc/description", "signalling/token",
	"signalling/matrixrtc/member", "signalling/matrix/call", "signalling/matrix/mediakeys",
}

// clocks are the functions of package time that read or run on the wall clock.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// A ban keeps a package of others (and everything below it) out of ours.
type ban struct {
	path   string
	in     []string // the packages it binds; nil = all
	except []string // the packages that may
	unless string   // a path below it that is fine
	why    string
}

// protocolUsers are the packages that speak LiveKit's wire types.
var protocolUsers = []string{"signalling/livekit", "signalling/token", "bench", "internal/testnet"}

var bans = []ban{
	{path: "github.com/pion/webrtc", except: []string{"sfu/rtc", "bench", "internal/testnet"},
		why: "only sfu/rtc knows Pion's peer connection, so that the path below it can be replaced"},
	{path: "github.com/pion", in: []string{"sfu", "sfu/packet", "sfu/codec", "sfu/bandwidth", "signalling", "signalling/livekit", "signalling/matrixrtc", "edge"},
		why: "the room, the edges and the parsers work on our own types; Pion ends at sfu/rtc (sfu/forward uses its rtcp types)"},
	{path: "github.com/pion/turn", except: []string{"turn"},
		why: "the relay is one package; everything else speaks of URLs and credentials"},
	{path: "github.com/caddyserver/certmagic", except: []string{"edge/acme"},
		why: "certificates come from one place; listeners see tls.Certificates"},
	{path: "github.com/nats-io", except: []string{"cluster"},
		why: "placement is a seam: only cluster knows what carries it"},
	{path: "maunium.net/go/mautrix", except: []string{"signalling/homeserver", "signalling/federation", "signalling/matrix", "signalling/matrix/device", "signalling/matrix/courier", "signalling/matrix/standin", "signalling/matrix/switchboard", "signalling/matrixrtc", "signalling/matrixrtc/leave", "signalling/matrixrtc/roster", "signalling/matrixrtc/standing", "internal/testnet/realserver"},
		why: "Matrix types end at the Matrix edges"},
	{path: "github.com/livekit/protocol/rpc", why: "of livekit/protocol we take livekit, auth and webhook only: the rest pulls in psrpc and redis"},
	{path: "github.com/livekit/protocol/redis", why: "of livekit/protocol we take livekit, auth and webhook only: the rest pulls in psrpc and redis"},
	{path: "github.com/livekit/protocol/utils", why: "of livekit/protocol we take livekit, auth and webhook only: the rest pulls in psrpc and redis"},
	{path: "github.com/livekit/psrpc", why: "a cluster carries the clients' own protocol, never an RPC framework"},
	{path: "github.com/livekit/mediatransportutil", why: "it lags Pion's versions"},
	{path: "github.com/livekit/protocol", except: protocolUsers,
		why: "LiveKit's wire types end at the client edge; the room has its own"},
	{path: "github.com/prometheus", except: []string{"internal/telemetry"},
		why: "leaves return plain snapshots; telemetry alone turns them into metrics"},
	{path: "github.com/knadh/koanf", except: []string{"internal/config"},
		why: "configuration is read in one place"},
	{path: "github.com/alecthomas/kong", except: []string{"cmd/callserver"},
		why: "the command line belongs to the program"},
	{path: "net", in: passive, unless: "net/netip",
		why: "passive packages own no socket (net/netip is fine)"},
	{path: "os", in: passive,
		why: "passive packages touch neither files nor processes"},
}
