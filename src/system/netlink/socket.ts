/**
 * A NETLINK_ROUTE socket. It belongs for good to the network namespace its thread was in when it was opened,
 * so links inside a container are worked on from the main thread without any switching. Requests are
 * synchronous: the kernel answers rtnetlink requests before sendto(2) returns.
 */
import { ERRNO, KernelError } from '#system/kernel/errno.ts';
import { inNetworkNamespace } from '#system/kernel/namespaces.ts';
import {
  bindSocket,
  closeSocket,
  netlinkAddress,
  openSocket,
  receive,
  SOCK_RAW,
  sendTo,
  setReceiveTimeout,
} from '#system/kernel/socket.ts';
import {
  decodeMessages,
  encodeMessage,
  type Message,
  NetlinkFormatError,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from './message.ts';
import {
  type Address,
  AF_INET,
  dumpAddresses,
  dumpLinks,
  dumpRoutes,
  getLink,
  type Link,
  parseAddress,
  parseLink,
  parseRoute,
  type Request,
  type Route,
} from './route.ts';

const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
/** An answer that has not come by then never will; the event loop must not hang on it. */
const RECEIVE_TIMEOUT_MS = 2000;
/** The kernel fills at most 32 KiB of a dump at a time; an answer echoing a large request is smaller. */
const RECEIVE_BUFFER_BYTES = 64 * 1024;
/** A dump interrupted by changes is repeated at most this often. */
const DUMP_ATTEMPTS_MAX = 10;

const KERNEL = netlinkAddress();
const receiveBuffer = Buffer.alloc(RECEIVE_BUFFER_BYTES);

/** An open rtnetlink socket. */
export class NetlinkSocket implements Disposable {
  #fd: number;
  #sequence = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Opens a socket in this thread's namespace, or in the one at `namespacePath`. */
  static open(namespacePath?: string): NetlinkSocket {
    return namespacePath === undefined ? openHere() : inNetworkNamespace(namespacePath, openHere);
  }

  /** Performs a request and waits for its acknowledgement; throws KernelError naming operation and object. */
  request(request: Request): void {
    this.#exchange(request, NLM_F_ACK);
  }

  /** Performs a query; returns the answers. A dump that raced with a change is repeated. */
  query(request: Request): Message[] {
    for (let attempt = 1; ; attempt += 1) {
      const answers = this.#exchange(request, (request.flags & NLM_F_DUMP) === 0 ? NLM_F_ACK : 0);
      const interrupted = answers.some(({ flags }) => (flags & NLM_F_DUMP_INTR) !== 0);
      if (!interrupted || attempt === DUMP_ATTEMPTS_MAX) return answers;
    }
  }

  links(): Link[] {
    return this.query(dumpLinks()).map(parseLink);
  }

  /** A link by name or index; undefined when there is none. */
  link(nameOrIndex: string | number): Link | undefined {
    try {
      const answer = this.query(getLink(nameOrIndex))[0];
      return answer === undefined ? undefined : parseLink(answer);
    } catch (error) {
      if (error instanceof KernelError && error.code === 'ENODEV') return undefined;
      throw error;
    }
  }

  addresses(family: number = AF_INET): Address[] {
    return this.query(dumpAddresses(family)).map(parseAddress);
  }

  routes(family: number = AF_INET): Route[] {
    return this.query(dumpRoutes(family)).map(parseRoute);
  }

  #exchange(request: Request, flags: number): Message[] {
    this.#sequence = (this.#sequence + 1) >>> 0;
    const header = { type: request.type, flags: request.flags | flags | NLM_F_REQUEST, sequence: this.#sequence };
    sendTo(this.#fd, encodeMessage(header, request.body, request.attributes), KERNEL);
    const answers: Message[] = [];
    for (;;) {
      const length = receive(this.#fd, receiveBuffer);
      if (length === undefined) throw new KernelError(ERRNO['ETIMEDOUT'] ?? 110, 'netlink', request.what);
      for (const message of decodeMessages(receiveBuffer.subarray(0, length))) {
        // An answer to an earlier request that was given up is left behind.
        if (message.sequence !== this.#sequence) continue;
        if (message.type === NLMSG_DONE) return answers;
        if (message.type === NLMSG_ERROR) {
          if (message.payload.length < 4) throw new NetlinkFormatError('truncated acknowledgement');
          const errno = -message.payload.readInt32LE(0);
          if (errno !== 0) throw new KernelError(errno, 'netlink', request.what);
          return answers;
        }
        answers.push({ ...message, payload: Buffer.from(message.payload) });
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSocket(this.#fd);
    this.#fd = -1;
  }
}

function openHere(): NetlinkSocket {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    bindSocket(fd, netlinkAddress());
    setReceiveTimeout(fd, RECEIVE_TIMEOUT_MS);
    return new NetlinkSocket(fd);
  } catch (error) {
    closeSocket(fd);
    throw error;
  }
}
