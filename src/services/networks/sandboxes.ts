/**
 * The network namespaces of containers: bind-mounted files `<netns>/<12 hex>`, named after their containers, so
 * that none can be lost track of, and a netlink socket inside each one in use.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createNetworkNamespace, removeNetworkNamespace } from '#system/kernel/namespaces.ts';
import { setLink } from '#system/netlink/route.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import type { Id } from '#types/ids.ts';
import type { Sandbox } from './contract.ts';
import type { OpenSandbox } from './driver.ts';

export const LOOPBACK_INDEX = 1;
const SANDBOX_NAME = /^[0-9a-f]{12}$/;

/** All sandboxes of a daemon. */
export class Sandboxes implements Disposable {
  readonly #directory: string;
  readonly #sockets = new Map<string, NetlinkSocket>();

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o755 });
  }

  /** The sandbox of a container, whether or not it exists. */
  of(containerId: Id): Sandbox {
    const id = createHash('sha256').update(`sandbox ${containerId}`).digest('hex') as Id;
    return { id, path: join(this.#directory, id.slice(0, 12)) };
  }

  /** A sandbox with a socket inside; throws when it does not exist. */
  open(sandbox: Sandbox): OpenSandbox {
    let netlink = this.#sockets.get(sandbox.path);
    if (netlink === undefined) {
      netlink = NetlinkSocket.open(sandbox.path);
      this.#sockets.set(sandbox.path, netlink);
    }
    return { ...sandbox, netlink };
  }

  /** Makes the container's namespace anew, loopback up. */
  create(containerId: Id): Sandbox {
    const sandbox = this.of(containerId);
    // A file left by a start that failed half-way.
    this.remove(containerId);
    createNetworkNamespace(sandbox.path);
    try {
      this.open(sandbox).netlink.request(setLink(LOOPBACK_INDEX, { up: true }));
    } catch (error) {
      this.remove(containerId);
      throw error;
    }
    return sandbox;
  }

  /** Idempotent. An open socket would keep the namespace alive, so it is closed first. */
  remove(containerId: Id): void {
    const { path } = this.of(containerId);
    this.#close(path);
    removeNetworkNamespace(path);
  }

  /** Removes every namespace file that belongs to none of these containers. */
  keepOnly(containers: ReadonlySet<Id>): void {
    const kept = new Set([...containers].map((containerId) => this.of(containerId).path));
    for (const name of readdirSync(this.#directory)) {
      const path = join(this.#directory, name);
      if (SANDBOX_NAME.test(name) && !kept.has(path)) removeNetworkNamespace(path);
    }
  }

  #close(path: string): void {
    this.#sockets.get(path)?.[Symbol.dispose]();
    this.#sockets.delete(path);
  }

  [Symbol.dispose](): void {
    for (const path of [...this.#sockets.keys()]) this.#close(path);
  }
}
