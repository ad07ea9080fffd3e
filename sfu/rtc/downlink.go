package rtc

// downlink is one track that we send.
type downlink struct{ options DownlinkOptions }

func (d *downlink) sending() *sending { return nil }
