/** DNS over real sockets. */
import type { DnsTransport } from './contract.ts';
import { ask } from './exchange.ts';
import { listen } from './listener.ts';

/** The transport of a daemon. */
export const socketTransport: DnsTransport = { listen, ask };
