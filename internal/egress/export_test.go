package egress

import (
	"context"
	"net/netip"
)

// Judge says why an address is refused; empty when it is permitted.
func (d *Dialer) Judge(ctx context.Context, address string) string {
	peer := netip.MustParseAddrPort(address)
	reason, err := d.refusal(ctx, peer.Addr().String(), peer, nil)
	if err != nil {
		return err.Error()
	}
	return reason
}
