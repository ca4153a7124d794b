/**
 * Docker's plugin protocol, version 1: a plugin is found by its name in well-known directories, answers POST
 * requests with JSON over a unix socket, and says at its activation what it implements. Answers are limited.
 */
import { existsSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { errorMessage, GantryError } from '#types/errors.ts';

/** Where sockets and, after them, files naming sockets are looked for. */
export interface PluginDirectories {
  readonly sockets: readonly string[];
  readonly specs: readonly string[];
}

export const PLUGIN_DIRECTORIES: PluginDirectories = {
  sockets: ['/run/docker/plugins'],
  specs: ['/etc/docker/plugins', '/usr/lib/docker/plugins'],
};

const PLUGIN_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const ACCEPT = 'application/vnd.docker.plugins.v1.2+json';
/** A plugin that has not answered by then does not count as there. */
const ANSWER_TIMEOUT_MS = 30_000;
const ANSWER_MAX_BYTES = 1024 * 1024;

/** Path of the socket of a plugin; undefined when there is none of that name. */
export function findPluginSocket(name: string, directories: PluginDirectories): string | undefined {
  if (!PLUGIN_NAME.test(name)) return undefined;
  for (const directory of directories.sockets) {
    for (const path of [join(directory, `${name}.sock`), join(directory, name, `${name}.sock`)])
      if (existsSync(path)) return path;
  }
  for (const directory of directories.specs) {
    for (const file of [join(directory, `${name}.spec`), join(directory, `${name}.json`)]) {
      if (existsSync(file)) return socketIn(name, file);
    }
  }
  return undefined;
}

function socketIn(name: string, file: string): string {
  const text = readFileSync(file, 'utf8').trim();
  const address = file.endsWith('.json') ? String((JSON.parse(text) as { Addr?: unknown }).Addr ?? '') : text;
  if (address.startsWith('unix://')) return address.slice('unix://'.length);
  throw new GantryError('notImplemented', `plugin ${name}: only unix sockets are supported, not ${address}`);
}

/** One plugin, activated at the first call. */
export class Plugin {
  readonly name: string;
  readonly #socketPath: string;
  #activated: Promise<readonly string[]> | undefined;

  constructor(name: string, socketPath: string) {
    this.name = name;
    this.#socketPath = socketPath;
  }

  /** What it implements. */
  implements(): Promise<readonly string[]> {
    this.#activated ??= this.#post('Plugin.Activate', {}).then(({ Implements: kinds }) =>
      Array.isArray(kinds) ? kinds.map(String) : [],
    );
    // A plugin that was not up yet is asked again.
    this.#activated.catch(() => {
      this.#activated = undefined;
    });
    return this.#activated;
  }

  /** Calls a method; throws what the plugin gives as its error. */
  async call(method: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    await this.implements();
    const answer = await this.#post(method, body);
    if (typeof answer['Err'] === 'string' && answer['Err'] !== '')
      throw new GantryError('system', `remote: ${answer['Err']}`);
    return answer;
  }

  #post(method: string, body: object): Promise<Record<string, unknown>> {
    const text = JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const fail = (problem: unknown): void =>
        reject(
          new GantryError('system', `plugin ${this.name}: ${method}: ${errorMessage(problem)}`, { cause: problem }),
        );
      const call = request(
        {
          socketPath: this.#socketPath,
          path: `/${method}`,
          method: 'POST',
          headers: { Accept: ACCEPT, 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) },
          signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
        },
        (response) => {
          const chunks: Buffer[] = [];
          let length = 0;
          response.on('data', (chunk: Buffer) => {
            length += chunk.length;
            if (length > ANSWER_MAX_BYTES) response.destroy(new Error('the answer is too long'));
            else chunks.push(chunk);
          });
          response.on('error', fail);
          response.on('end', () => {
            try {
              resolve(readAnswer(response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8')));
            } catch (error) {
              fail(error);
            }
          });
        },
      );
      call.on('error', fail);
      call.end(text);
    });
  }
}

/** Compat: an error may come with any status, as `Err` or as plain text. */
function readAnswer(status: number, text: string): Record<string, unknown> {
  if (status !== 200) {
    const parsed = text.trimStart().startsWith('{') ? (JSON.parse(text) as { Err?: unknown }) : undefined;
    throw new Error(String(parsed?.Err ?? (text.trim() || `status ${status}`)));
  }
  const value: unknown = text.trim() === '' ? {} : JSON.parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('the answer is no object');
  return value as Record<string, unknown>;
}
