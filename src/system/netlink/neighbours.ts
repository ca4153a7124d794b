/** rtnetlink(7) requests for neighbour and bridge forwarding entries. Pure. */
import { NLM_F_CREATE, NLM_F_REPLACE } from './message.ts';
import { AF_BRIDGE, addressBytes, familyOf, macBytes, type Request, RTM_NEWNEIGH } from './route.ts';

const NDA_DST = 1;
const NDA_LLADDR = 2;
const NTF_MASTER = 4;
const NUD_NOARP = 0x40;
const NUD_STALE = 4;

function neighbourBody(family: number, index: number, state: number, flags: number): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt8(family, 0);
  body.writeInt32LE(index, 4);
  body.writeUInt16LE(state, 8);
  body.writeUInt8(flags, 10);
  return body;
}

/** Tells the host which MAC address an IP address has now, replacing what it learned before. */
export function setNeighbour(index: number, address: string, mac: string): Request {
  return {
    what: `set neighbour ${address}`,
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: neighbourBody(familyOf(address), index, NUD_STALE, 0),
    attributes: [
      [NDA_DST, addressBytes(address)],
      [NDA_LLADDR, macBytes(mac)],
    ],
  };
}

/** Tells the bridge behind which port a MAC address is now: a static entry, which goes with the port (a port not yet forwarding takes no other kind). */
export function setForwarding(portIndex: number, mac: string): Request {
  return {
    what: `set forwarding entry ${mac}`,
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: neighbourBody(AF_BRIDGE, portIndex, NUD_NOARP, NTF_MASTER),
    attributes: [[NDA_LLADDR, macBytes(mac)]],
  };
}
