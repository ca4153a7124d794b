/**
 * The rules of names, removal, lists and prunes of images, as a transcript of the docker CLI against dockerd 28.5.2
 * (the part with a running container: 20.10): every command must print the same here.
 *
 * The transcript (image-rules.txt): `$ arguments` is compared with the lines under it (and `exit n`); `NAME=arguments`
 * prepares, and keeps what was printed under NAME. IDs are written by their names, short ones with a dot; other
 * digests are numbered in order of appearance. Lists are compared without their order, which docker does not promise.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { formatPlatform, hostPlatform } from '#types/platform.ts';
import { busyboxTar } from '../harness/busybox.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'uses fixed names and prunes; GANTRY_TEST_HOST names another engine' } : {};
const UNORDERED = /^(images|image prune) /;

interface Chapter {
  readonly title: string;
  readonly lines: string[];
}

const text = readFileSync(join(import.meta.dirname, 'image-rules.txt'), 'utf8');
const chapters: Chapter[] = [];
for (const line of text.replaceAll('linux/amd64', formatPlatform(hostPlatform())).split('\n')) {
  if (line.startsWith('# ')) chapters.push({ title: line.slice(2), lines: [] });
  else if (line !== '') chapters.at(-1)?.lines.push(line);
}

/** Names for IDs, the same for the same ID. */
class Names {
  readonly #names = new Map<string, string>();
  #numbered = 0;

  set(id: string, name: string): void {
    this.#names.set(id.replace('sha256:', '').slice(0, 12), name);
  }

  apply(output: string): string {
    return output.replace(
      /\b(sha256:)?([0-9a-f]{64}|[0-9a-f]{12})\b/g,
      (_, prefix: string | undefined, hex: string) => {
        const key = hex.slice(0, 12);
        let name = this.#names.get(key);
        if (name === undefined) {
          this.#numbered += 1;
          name = `ID${this.#numbered}`;
          this.#names.set(key, name);
        }
        return `${prefix ?? ''}${name}${hex.length === 12 ? '.' : ''}`;
      },
    );
  }
}

describe('rules of images', options, () => {
  let daemon: TestDaemon;
  const values = new Map<string, string>();
  const names = new Names();
  before(async () => {
    daemon = await startDaemon({ bridge: false, busybox: false });
    for (const name of ['a', 'b', 'c']) {
      writeFileSync(join(daemon.directory, `file${name}`), `${name}\n`);
      await run('tar', ['-C', daemon.directory, '-cf', join(daemon.directory, `${name}.tar`), `file${name}`]);
    }
    values.set('T', daemon.directory);
    values.set('BUSYBOX', await busyboxTar());
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const words = (line: string): string[] =>
    [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) =>
      (quoted ?? plain ?? '').replace(/\$(\w+)/g, (_, name: string) => values.get(name) ?? ''),
    );

  for (const { title, lines } of chapters) {
    test(title, async () => {
      for (let index = 0; index < lines.length; ) {
        const line = lines[index] as string;
        index += 1;
        const prepared = /^(\w+)=(.*)$/.exec(line);
        if (prepared !== null) {
          const [, name = '', command = ''] = prepared;
          const value = await daemon.ok(...words(command));
          values.set(name, value);
          values.set(`${name}12`, value.replace('sha256:', '').slice(0, 12));
          names.set(value, name);
          continue;
        }
        const expected: string[] = [];
        for (; lines[index]?.startsWith('  ') === true; index += 1) expected.push((lines[index] as string).slice(2));
        const command = line.slice(2);
        const result = await daemon.docker(words(command));
        const printed = names.apply(result.stdout + result.stderr).split('\n');
        if (result.code !== 0) printed.push(`exit ${result.code}`);
        const actual = printed.filter((each) => each !== '');
        const isList = UNORDERED.test(command);
        assert.deepEqual(isList ? actual.toSorted() : actual, isList ? expected.toSorted() : expected, command);
      }
    });
  }
});
