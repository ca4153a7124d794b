/**
 * The embedded resolver as other services see it: 127.0.0.11:53 inside the sandbox of a container on
 * user-defined networks. It keeps no names of its own: at each query it asks the container's view.
 *
 * A view is immutable data. Whoever owns the networks hands out the same `endpoints` array until that
 * network changes (names are indexed once per array), and a new one at once when it does.
 */
import type { Id } from '#types/ids.ts';

/** Where containers find the embedded resolver; goes into their resolv.conf. */
export const RESOLVER_ADDRESS = '127.0.0.11';

/** The options docker adds to such a resolv.conf, unless an option of that name is set already. */
export const RESOLVER_OPTIONS: readonly string[] = ['ndots:0'];

/** One container (or other holder of an address) in a network, as DNS sees it. */
export interface NamedEndpoint {
  /**
   * In docker's order: container name, aliases, short ID, hostname. Any case. The first one answers PTR
   * queries, followed by the network's name.
   */
  readonly names: readonly string[];
  /** Dotted IPv4 address; '' for none. */
  readonly ipv4: string;
  /** IPv6 address in any valid form; '' for none. */
  readonly ipv6: string;
}

/** A network the asking container is on. */
export interface ResolverNetwork {
  readonly name: string;
  readonly endpoints: readonly NamedEndpoint[];
  /** The asking container's own legacy links in this network: alias → name of the linked container. */
  readonly links: ReadonlyMap<string, string>;
}

/** A server that unknown names are forwarded to. */
export interface Upstream {
  /** IPv4 or IPv6 address, the latter with `%zone` if it needs one. */
  readonly address: string;
  /** 53 when left out. */
  readonly port?: number;
  /**
   * Asked from the host's namespace: every server that came from the host's resolv.conf. Those the user named
   * (`--dns`, the daemon's `dns`) are asked from the container's.
   */
  readonly fromHost: boolean;
}

/** What the resolver knows on behalf of one container at one moment. */
export interface ResolverView {
  /** In docker's order of endpoints: the one that gives the default route first. */
  readonly networks: readonly ResolverNetwork[];
  /** In order; only the first three are used. The resolver's own address is skipped. */
  readonly upstreams: readonly Upstream[];
  /** Whether some network of the container leads outside (not internal, has a gateway). If none does, no upstream is asked from the host. */
  readonly external: boolean;
  /** Whether `ndots` was set by the user or the host: unknown names without a dot are then not forwarded. */
  readonly ndotsSet: boolean;
}

/** The resolvers of all containers of a daemon. Disposing closes all sockets; firewall rules stay in the sandboxes. */
export interface Resolver extends AsyncDisposable {
  /**
   * Serves the sandbox (path of its namespace file) from now on. Also for the sandbox of a container that kept
   * running while the daemon was away: what an earlier daemon set up there is replaced in one step.
   * Call it before the container's process starts, and once its first user-defined network is connected.
   * Attaching a container again replaces its view and, if the path is another one, its sockets.
   */
  attach(sandboxPath: string, containerId: Id, view: () => ResolverView): Promise<void>;
  /** Ends it: afterwards no socket keeps the namespace alive. Pending queries are dropped. Idempotent. */
  detach(containerId: Id): Promise<void>;
}
