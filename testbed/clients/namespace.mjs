// A network of the tests' own: free ports, no stray traffic, and interfaces that may be cut.
import { enterNamespace as enter } from '../process/namespaces.mjs';

const address = '10.77.1.1';

// What that namespace has besides loopback: one interface with an address and the default route. Without the address neither the Rust core
// of rtc-node nor Firefox gathers candidates, without the route Firefox does not.
const network = `ip link add peers type veth peer name elsewhere && ip address add ${address}/24 dev peers \
  && ip link set peers up && ip link set elsewhere up && ip route add default dev peers`;

// enterNamespace runs this program again in a network of its own and ends with it. It returns only in there, with the address; or, where
// this is not root or may not, at once without one, and the cases that need more than loopback say so.
export const enterNamespace = () => enter(network).then(() => address, () => undefined);
