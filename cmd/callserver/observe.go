package main

import (
	"callserver/edge"
	"callserver/internal/telemetry"
	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling/homeserver"
	"callserver/signalling/livekit"
	"callserver/signalling/matrixrtc"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/roster"
)

// observe gives telemetry the snapshots of every part.
func (s *server) observe() {
	t := s.telemetry
	observeHTTP(t, s.public)
	telemetry.Poll(t, s.rooms.Stats,
		gauge("rooms", "Open rooms.", func(v sfu.Stats) int { return v.Rooms }),
		gauge("participants", "Participants in all rooms.", func(v sfu.Stats) int { return v.Participants }),
		gauge("participants_withheld", "Participants whose media is not forwarded: no membership event names them.", func(v sfu.Stats) int { return v.Withheld }),
		gauge("tracks", "Published tracks.", func(v sfu.Stats) int { return v.Tracks }),
		gauge("participants_narrow", "Participants that are sent less video than they want, because their line carries no more.", func(v sfu.Stats) int { return v.Narrow }),
		gauge("tracks_limited", "Published tracks of which layers are withheld for limits.bitrate or limits.load.", func(v sfu.Stats) int { return v.Limited }),
		gauge("subscriptions", "Tracks forwarded to participants.", func(v sfu.Stats) int { return v.Subscriptions }),
		counter("rooms_created_total", "Rooms opened.", func(v sfu.Stats) uint64 { return v.RoomsCreated }),
		counter("rooms_closed_total", "Rooms closed.", func(v sfu.Stats) uint64 { return v.RoomsClosed }),
		counter("joins_total", "Participants that joined.", func(v sfu.Stats) uint64 { return v.Joins }),
		counter("leaves_total", "Participants that left.", func(v sfu.Stats) uint64 { return v.Leaves }),
		counter("participant_overflows_total", "Participants closed because nobody read their events.", func(v sfu.Stats) uint64 { return v.Overflows }),
	)
	s.observeLoad()
	telemetry.Poll(t, s.engine.Stats,
		gauge("peers", "Clients with a WebRTC peer.", func(v rtc.EngineStats) int { return v.Peers }),
		counter("peers_opened_total", "WebRTC peers opened.", func(v rtc.EngineStats) uint64 { return v.PeersOpened }),
		counter("peer_bad_descriptions_total", "Offers and answers refused.", func(v rtc.EngineStats) uint64 { return v.BadDescriptions }),
		counter("peer_panics_total", "Panics where a client's media enters; each closed that client.", func(v rtc.EngineStats) uint64 { return v.Panics }),
		counter("peer_overflows_total", "Peers ended because nobody read their events.", func(v rtc.EngineStats) uint64 { return v.Overflows }),
		counter("media_sent_packets_total", "Media and RTCP packets sent to clients.", func(v rtc.EngineStats) uint64 { return v.Egress.Packets }),
		counter("media_sent_bytes_total", "Bytes of them, as datagrams.", func(v rtc.EngineStats) uint64 { return v.Egress.Bytes }),
		counter("media_refused_packets_total", "Packets not sent because another had their number.", func(v rtc.EngineStats) uint64 { return v.Egress.Refused }),
		counter("media_overflow_packets_total", "Packets dropped because a core was too far behind.", func(v rtc.EngineStats) uint64 { return v.Egress.Overflows }),
		counter("media_lost_datagrams_total", "Datagrams that the kernel refused to send.", func(v rtc.EngineStats) uint64 { return v.Egress.Lost }),
		counter("media_unsegmented_total", "Destinations that do not take segmented runs of datagrams.", func(v rtc.EngineStats) uint64 { return v.Egress.Unsegmented }),
		counter("media_dropped_datagrams_total", "Datagrams to the media port that were not read in time, or came damaged.", func(v rtc.EngineStats) uint64 { return v.Dropped }),
		counter("media_forged_packets_total", "Packets received that were not authentic.", func(v rtc.EngineStats) uint64 { return v.Forged }),
		counter("media_unrouted_packets_total", "Packets received that belong to no media section.", func(v rtc.EngineStats) uint64 { return v.Unrouted }),
	)
	telemetry.Poll(t, s.client.Stats,
		gauge("livekit_clients", "LiveKit clients, connected or expected back.", func(v livekit.Stats) int { return v.Clients }),
		counter("livekit_joined_total", "LiveKit clients that joined.", func(v livekit.Stats) uint64 { return v.Joined }),
		counter("livekit_resumed_total", "Connections that took over a session.", func(v livekit.Stats) uint64 { return v.Resumed }),
		counter("livekit_mismatched_total", "Resumptions of sessions that are not known.", func(v livekit.Stats) uint64 { return v.Mismatched }),
		counter("livekit_refused_total", "Requests answered with an HTTP error.", func(v livekit.Stats) uint64 { return v.Refused }),
		counter("livekit_panics_total", "Panics where a client's messages enter; each closed that client.", func(v livekit.Stats) uint64 { return v.Panics }),
		counter("livekit_cut_total", "Connections cut because the client did not read.", func(v livekit.Stats) uint64 { return v.Cut }),
	)
	telemetry.Poll(t, s.authoriser.Stats,
		counter("matrix_requests_total", "Requests to the Matrix endpoints.", func(v matrixrtc.Stats) uint64 { return v.Requests }),
		counter("matrix_tokens_total", "Tokens issued with full access.", func(v matrixrtc.Stats) uint64 { return v.Tokens }),
		counter("matrix_tokens_restricted_total", "Tokens issued to subscribe only.", func(v matrixrtc.Stats) uint64 { return v.Restricted }),
		counter("matrix_tokens_relayed_total", "Tokens that other homeservers issued to users of ours.", func(v matrixrtc.Stats) uint64 { return v.Relayed }),
		counter("matrix_bad_requests_total", "Requests answered 400 or 413.", func(v matrixrtc.Stats) uint64 { return v.BadRequests }),
		counter("matrix_unauthorized_total", "Requests whose homeserver did not vouch for the user.", func(v matrixrtc.Stats) uint64 { return v.Unauthorized }),
		counter("matrix_forbidden_total", "Requests answered 403: another homeserver, or not in the room.", func(v matrixrtc.Stats) uint64 { return v.Forbidden }),
		counter("matrix_rate_limited_total", "Requests answered 429.", func(v matrixrtc.Stats) uint64 { return v.RateLimited }),
		counter("matrix_failures_total", "Requests answered 500, 502 or 503.", func(v matrixrtc.Stats) uint64 { return v.Failures }),
		counter("matrix_lookups_total", "OpenID questions to homeservers.", func(v matrixrtc.Stats) uint64 { return v.Federation.Lookups }),
		counter("matrix_lookup_failures_total", "OpenID questions without a usable answer.", func(v matrixrtc.Stats) uint64 { return v.Federation.LookupFailures }),
		counter("matrix_outside_total", "Tokens refused: the user is not in the Matrix room.", func(v matrixrtc.Stats) uint64 { return v.Members.Outside }),
		counter("matrix_unverifiable_total", "Tokens refused: nobody can tell whether the user is in the Matrix room.", func(v matrixrtc.Stats) uint64 { return v.Members.Unverifiable }),
		counter("matrix_unverified_total", "Tokens issued although nobody can tell, as configured.", func(v matrixrtc.Stats) uint64 { return v.Members.Unverified }),
		counter("matrix_unavailable_total", "Tokens refused: the homeserver did not tell whether the user is in the room.", func(v matrixrtc.Stats) uint64 { return v.Members.Unavailable }),
		gauge("matrix_followed_rooms", "Matrix rooms with a call that are followed by a long poll.", func(v matrixrtc.Stats) int { return int(v.Members.Polls) }),
		counter("matrix_questions_total", "Questions to homeservers about people who are in a call.", func(v matrixrtc.Stats) uint64 { return v.Members.Questions }),
		counter("matrix_evicted_total", "Participants removed because their user left the Matrix room.", func(v matrixrtc.Stats) uint64 { return v.Members.Evicted }),
		counter("matrix_lookups_spared_total", "OpenID questions not asked because the same one just failed.", func(v matrixrtc.Stats) uint64 { return v.Federation.LookupsSpared }),
	)
	telemetry.Poll(t, func() map[string]uint64 { return s.authoriser.Stats().Refusals }, refusals()...)
	if s.relay != nil {
		s.relay.observe(t)
	}
	s.observeData()
	s.observeBot()
	s.observeSwitchboard()
	telemetry.Poll(t, s.homeserverStats,
		counter("homeserver_requests_total", "Requests sent to homeservers.", func(v homeserver.Stats) uint64 { return v.Requests }),
		counter("homeserver_failures_total", "Requests that homeservers did not answer, or with 5xx or 429.", func(v homeserver.Stats) uint64 { return v.Failures }),
		counter("homeserver_spared_total", "Requests not sent to a homeserver that had not answered just before.", func(v homeserver.Stats) uint64 { return v.Spared }),
		counter("homeserver_transactions_total", "Transactions pushed by homeservers.", func(v homeserver.Stats) uint64 { return v.Transactions }),
		counter("homeserver_replayed_total", "Transactions seen before.", func(v homeserver.Stats) uint64 { return v.Replayed }),
		counter("homeserver_events_total", "Events pushed by homeservers.", func(v homeserver.Stats) uint64 { return v.Events }),
		counter("homeserver_bad_events_total", "Events that could not be read.", func(v homeserver.Stats) uint64 { return v.BadEvents }),
		counter("homeserver_dropped_total", "Events that a part of this server had no room for.", func(v homeserver.Stats) uint64 { return v.Dropped }),
	)
}

// observeData adds the snapshots of what survives a restart.
func (s *server) observeData() {
	t := s.telemetry
	if s.roster != nil {
		telemetry.Poll(t, s.roster.Stats,
			counter("memberships_cleared_total", "Memberships cleared because their participant was gone.", func(v roster.Stats) uint64 { return v.Cleared }),
			counter("memberships_moot_total", "Participants that went and left no membership behind.", func(v roster.Stats) uint64 { return v.Moot }),
			counter("memberships_unable_total", "Participants that went and whose membership no registration lets us read or clear.", func(v roster.Stats) uint64 { return v.Unable }),
			counter("membership_looks_total", "Looks for the membership of a participant.", func(v roster.Stats) uint64 { return v.Looks }),
			counter("membership_failures_total", "Questions about memberships that a homeserver did not answer.", func(v roster.Stats) uint64 { return v.Failures }),
			counter("membership_withheld_total", "Participants withheld because no membership named them.", func(v roster.Stats) uint64 { return v.TimesWithheld }),
			counter("membership_store_failures_total", "Changes of who is in a call that could not be written to the data file.", func(v roster.Stats) uint64 { return v.StoreFailures }),
			gauge("membership_stays", "Devices in calls, about to come, or just gone.", func(v roster.Stats) int { return v.Stays }),
		)
	}
	if s.leaves != nil {
		telemetry.Poll(t, s.leaves.Stats,
			counter("leaves_delegated_total", "Delayed leaves taken over from clients.", func(v leave.Stats) uint64 { return v.Delegated }),
			counter("leaves_refused_total", "Delayed leaves not taken over.", func(v leave.Stats) uint64 { return v.Refused }),
			counter("leaves_restarted_total", "Restarts of delayed leaves.", func(v leave.Stats) uint64 { return v.Restarted }),
			counter("leaves_sent_total", "Delayed leaves sent for clients that were gone.", func(v leave.Stats) uint64 { return v.Sent }),
			counter("leaves_cancelled_total", "Delayed leaves cancelled because newer ones replaced them.", func(v leave.Stats) uint64 { return v.Cancelled }),
			counter("leaves_failures_total", "Requests about delayed leaves that homeservers did not grant.", func(v leave.Stats) uint64 { return v.Failures }),
			gauge("leaves_held", "Delayed leaves of participants that are here or may return.", func(v leave.Stats) int { return v.Held }),
			gauge("leaves_owed", "Delayed leaves that are to be sent or cancelled.", func(v leave.Stats) int { return v.Owed }),
			counter("leaves_store_failures_total", "Changes of delayed leaves that could not be written to the data file.", func(v leave.Stats) uint64 { return v.StoreFailures }),
		)
	}
}

func (s *server) observeLoad() {
	telemetry.Poll(s.telemetry, s.overload.stats,
		ratio("load_ratio", "The load by what of limits.load is nearest to its limit, smoothed: 1 is the limit.", func(v loadStats) float64 { return v.Ratio }),
		gauge("load_level", "What is done about the load: 0 nothing, 1 it is near the limit, 2 upper video layers are withheld, 3 newcomers are refused.", func(v loadStats) int { return int(v.Level) }),
		ratio("load_cpu_ratio", "Processor time of this process, as a share of the cores that it may use.", func(v loadStats) float64 { return v.CPU }),
		ratio("load_lateness_seconds", "By how much timers run late, on average of the last second.", func(v loadStats) float64 { return v.Late.Seconds() }),
		ratio("load_fanout_seconds", "How long it takes to send to all receivers what came in at once, on average of the packets sent in the last second.", func(v loadStats) float64 { return v.FanOut.Seconds() }),
		gauge("load_packets", "Packets sent to clients, a second.", func(v loadStats) int { return int(v.Packets) }),
		gauge("media_sent_bits", "Media sent to all participants, in bits a second.", func(v loadStats) int { return int(v.Sent) }),
		gauge("media_wanted_bits", "What would be sent if the load withheld nothing, in bits a second.", func(v loadStats) int { return int(v.Wanted) }),
		counter("load_refused_total", "Newcomers refused because of the load.", func(v loadStats) uint64 { return v.Refused }),
	)
}

func observeHTTP(t *telemetry.Telemetry, l *edge.Listener) {
	telemetry.Poll(t, l.Stats,
		counter("http_requests_total", "HTTP requests handed to a handler.", func(v edge.Stats) uint64 { return v.Requests }),
		counter("http_refused_total", "HTTP requests refused because the development key is in use.", func(v edge.Stats) uint64 { return v.Refused }),
		counter("http_closed_total", "Connections closed before it was clear what they speak: no TLS, no proxy header, or nothing said.", func(v edge.Stats) uint64 { return v.Closed }),
		counter("http_panics_total", "HTTP handlers that panicked.", func(v edge.Stats) uint64 { return v.Panics }),
	)
}

// homeserverStats are those of all homeservers together.
func (s *server) homeserverStats() (sum homeserver.Stats) {
	for _, h := range s.matrix {
		v := h.Stats()
		sum.Requests += v.Requests
		sum.Failures += v.Failures
		sum.Spared += v.Spared
		sum.Transactions += v.Transactions
		sum.Replayed += v.Replayed
		sum.Events += v.Events
		sum.BadEvents += v.BadEvents
		sum.Dropped += v.Dropped
	}
	return sum
}

// refusals are one counter a reason.
func refusals() (metrics []telemetry.Metric[map[string]uint64]) {
	for _, reason := range matrixrtc.Reasons() {
		m := counter("matrix_refused_total", "Requests to the Matrix endpoints that were refused, by reason.", func(v map[string]uint64) uint64 { return v[reason] })
		metrics = append(metrics, labelled(m, map[string]string{"reason": reason}))
	}
	return metrics
}

func counter[S any](name, help string, of func(S) uint64) telemetry.Metric[S] {
	return telemetry.Metric[S]{Name: name, Help: help, Kind: telemetry.Counter, Of: func(s S) float64 { return float64(of(s)) }}
}

// labelled is a metric whose name others have, too.
func labelled[S any](m telemetry.Metric[S], labels map[string]string) telemetry.Metric[S] {
	m.Labels = labels
	return m
}

func ratio[S any](name, help string, of func(S) float64) telemetry.Metric[S] {
	return telemetry.Metric[S]{Name: name, Help: help, Kind: telemetry.Gauge, Of: of}
}

func gauge[S any](name, help string, of func(S) int) telemetry.Metric[S] {
	return telemetry.Metric[S]{Name: name, Help: help, Kind: telemetry.Gauge, Of: func(s S) float64 { return float64(of(s)) }}
}
