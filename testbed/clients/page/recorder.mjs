// Recorder notes the figures of one connection over time: what a person at this end heard and saw, and what left from here.
const audioFields = ['totalSamplesReceived', 'concealedSamples', 'concealmentEvents', 'packetsReceived', 'packetsLost', 'nackCount', 'retransmittedPacketsReceived', 'jitterBufferDelay',
  'jitterBufferEmittedCount'];
const videoFields = ['framesDecoded', 'keyFramesDecoded', 'frameHeight', 'freezeCount', 'totalFreezesDuration', 'totalPausesDuration', 'bytesReceived', 'packetsReceived', 'packetsLost',
  'nackCount', 'pliCount', 'retransmittedPacketsReceived'];
const sentFields = ['rid', 'active', 'frameHeight', 'framesEncoded', 'bytesSent', 'retransmittedPacketsSent', 'qualityLimitationReason'];

const pick = (stat, fields) => Object.fromEntries(fields.map((field) => [field, stat[field]]));

export class Recorder {
  #samples = [];

  #timer;

  // connection is of livekit-client, in single mode: everything goes over one.
  constructor(connection, milliseconds) {
    this.#timer = setInterval(() => this.#note(connection), milliseconds);
  }

  async #note(connection) {
    const sample = { at: Date.now(), audio: {}, video: {}, sent: [] };
    const report = await connection.getStats();
    for (const stat of report.values()) {
      if (stat.type === 'inbound-rtp' && stat.packetsReceived > 0) sample[stat.kind][stat.trackIdentifier] = pick(stat, stat.kind === 'audio' ? audioFields : videoFields);
      else if (stat.type === 'outbound-rtp' && stat.kind === 'video') sample.sent.push(pick(stat, sentFields));
      else if (stat.type === 'candidate-pair' && stat.nominated && stat.state === 'succeeded') {
        sample.roundTrip = stat.currentRoundTripTime * 1000;
        sample.available = stat.availableOutgoingBitrate;
      }
    }
    this.#samples.push(sample);
  }

  stop() { clearInterval(this.#timer); }

  // take returns what was noted since the last time.
  take() {
    const samples = this.#samples;
    this.#samples = [];
    return samples;
  }
}
