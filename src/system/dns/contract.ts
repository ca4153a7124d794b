/**
 * DNS transport: listening inside a network namespace as 127.0.0.11:53, and asking servers from inside one.
 * Messages are opaque bytes here, at most 65,535 of them. Implementations: sockets.ts, and a fake in tests.
 */

/** Answers a client; calling it more than once or after the client has gone does nothing. */
export type Reply = (message: Buffer) => void;

export type Protocol = 'udp' | 'tcp';

/** What a listener does with a message. It must not throw. */
export type MessageHandler = (message: Buffer, protocol: Protocol, reply: Reply) => void;

/** A listening resolver. Disposing closes its sockets; the redirection of port 53 stays with the namespace. */
export interface Listener extends AsyncDisposable {
  readonly port: number;
}

/** One server to ask. */
export interface Server {
  readonly address: string;
  readonly port: number;
  /** Namespace file to ask from; undefined: the host's. */
  readonly namespacePath: string | undefined;
}

/** One question to one server. */
export interface Exchange {
  readonly server: Server;
  readonly protocol: Protocol;
  readonly message: Buffer;
  /** Whether bytes that came are the answer; others are skipped (a few), for anyone may have sent them. */
  readonly accept: (bytes: Buffer) => boolean;
  readonly timeoutMs: number;
}

/** The network as the resolver sees it. */
export interface DnsTransport {
  /** Listens in the namespace and redirects port 53 of 127.0.0.11 to itself there; replaces an earlier redirection. */
  listen(namespacePath: string, handler: MessageHandler): Promise<Listener>;
  /** Asks; rejects when the server cannot be reached, says nothing in time, or sends only what is not accepted. */
  ask(exchange: Exchange, signal: AbortSignal): Promise<Buffer>;
}
