/** Process streams on real FIFOs and sockets; a shell plays the shim's part. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ATTACH_BUFFER_BYTES } from '#services/streams/attachment.ts';
import type { AttachOptions, LogSink, OutputStream } from '#services/streams/contract.ts';
import { FifoProcessStreams, type ProcessStreamsOptions } from '#services/streams/process-streams.ts';
import type { Stdio } from '#system/runtime/contract.ts';

const OUTPUT: AttachOptions = {
  stdin: false,
  stdout: true,
  stderr: true,
  multiplexed: false,
  detachKeys: Buffer.alloc(0),
};
const BOTH: AttachOptions = { ...OUTPUT, stdin: true };

class MemoryLog implements LogSink {
  readonly text: Record<OutputStream, string> = { stdout: '', stderr: '' };
  bytes = 0;
  isEnded = false;
  write(stream: OutputStream, chunk: Buffer): undefined {
    this.bytes += chunk.length;
    if (this.bytes < 1_000_000) this.text[stream] += chunk.toString('latin1');
  }
  async end(): Promise<void> {
    this.isEnded = true;
  }
}

describe('process streams', () => {
  let directory: string;
  const cleanups: (() => void)[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'gantry-streams-'));
  });

  afterEach(() => {
    for (const cleanup of cleanups.splice(0)) cleanup();
    rmSync(directory, { recursive: true, force: true });
  });

  function make(options: Partial<ProcessStreamsOptions> = {}): FifoProcessStreams {
    const streams = new FifoProcessStreams({
      openStdin: false,
      stdinOnce: false,
      terminal: false,
      closeStdin: () => {},
      ...options,
    });
    cleanups.push(() => void streams[Symbol.asyncDispose]());
    return streams;
  }

  /** A process whose streams are the FIFOs, opened as the shim does: without waiting for the other side. */
  function run(stdio: Stdio, script: string): ChildProcess {
    const input = stdio.stdin === '' ? '/dev/null' : stdio.stdin;
    const error = stdio.stderr === '' ? '/dev/null' : stdio.stderr;
    const child = spawn('sh', ['-c', `exec <"$0" >"$1" 2>"$2"; ${script}`, input, stdio.stdout, error], {
      stdio: 'ignore',
    });
    cleanups.push(() => child.kill('SIGKILL'));
    return child;
  }

  async function socketPair(): Promise<{ near: Socket; far: Socket }> {
    const path = join(directory, `socket-${Math.random()}`);
    const server = createServer({ allowHalfOpen: true }).listen(path);
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    const far = connect({ path, allowHalfOpen: true });
    const [near] = (await accepted) as [Socket];
    server.close();
    cleanups.push(() => {
      near.destroy();
      far.destroy();
    });
    return { near, far };
  }

  async function readAll(socket: Socket): Promise<string> {
    let text = '';
    for await (const chunk of socket) text += (chunk as Buffer).toString('latin1');
    return text;
  }

  it('gives output to the log and to clients, framed when asked, and ends both', async () => {
    const streams = make();
    const log = new MemoryLog();
    const stdio = await streams.open(directory, log);
    assert.equal(stdio.stdin, '');
    const plain = await socketPair();
    const framed = await socketPair();
    const plainEnd = streams.attach(plain.near, { ...OUTPUT, stderr: false });
    const framedEnd = streams.attach(framed.near, { ...OUTPUT, multiplexed: true });
    const child = run(stdio, 'printf out; printf err >&2');
    await once(child, 'exit');
    streams.connected();
    const texts = Promise.all([readAll(plain.far), readAll(framed.far)]);
    await streams.finish();
    const [plainText, framedText] = await texts;
    assert.equal(plainText, 'out');
    assert.ok(framedText.includes('\x01\0\0\0\0\0\0\x03out'));
    assert.ok(framedText.includes('\x02\0\0\0\0\0\0\x03err'));
    plain.far.end();
    framed.far.end();
    assert.equal(await plainEnd, 'process-ended');
    assert.equal(await framedEnd, 'process-ended');
    assert.deepEqual({ ...log.text }, { stdout: 'out', stderr: 'err' });
    assert.ok(log.isEnded);
    assert.ok(!existsSync(stdio.stdout));
  });

  it('delivers input typed before the process exists, and its end', async () => {
    const calls: string[] = [];
    const streams = make({ openStdin: true, stdinOnce: true, closeStdin: () => void calls.push('closed') });
    const { near, far } = await socketPair();
    const ended = streams.attach(near, BOTH);
    far.end('early input\n');
    await delay(50);
    const stdio = await streams.open(directory, undefined);
    const child = run(stdio, 'cat');
    await delay(100);
    assert.deepEqual(calls, []);
    streams.connected();
    await once(child, 'exit');
    const text = readAll(far);
    await streams.finish();
    assert.equal(await text, 'early input\n');
    assert.equal(await ended, 'process-ended');
    assert.deepEqual(calls, ['closed']);
  });

  it('ends an attachment by the detach keys and leaves the process running', async () => {
    const streams = make({ openStdin: true, terminal: true });
    const stdio = await streams.open(directory, undefined);
    const child = run(stdio, 'cat');
    const { near, far } = await socketPair();
    const ended = streams.attach(near, { ...BOTH, detachKeys: Buffer.from([16, 17]) });
    await delay(50);
    streams.connected();
    far.write('hello\x10');
    far.write('\x11');
    assert.equal(await ended, 'detached');
    assert.equal(child.exitCode, null);
    assert.ok(!near.destroyed);
  });

  it('reports a client that went away', async () => {
    const streams = make();
    await streams.open(directory, undefined);
    const { near, far } = await socketPair();
    const ended = streams.attach(near, OUTPUT);
    far.end();
    await delay(30);
    near.destroy();
    assert.equal(await ended, 'client-gone');
  });

  it('slows the process when a client does not read, and loses nothing', async () => {
    const streams = make();
    const log = new MemoryLog();
    const stdio = await streams.open(directory, log);
    const { near, far } = await socketPair();
    void streams.attach(near, OUTPUT);
    const total = 8 * 1024 * 1024;
    run(stdio, `head -c ${total} /dev/zero`);
    await delay(50);
    streams.connected();
    await delay(400);
    assert.ok(near.writableLength <= ATTACH_BUFFER_BYTES + 64 * 1024, `${near.writableLength} bytes wait`);
    assert.ok(log.bytes < total / 2, 'the process was not slowed');
    let received = 0;
    far.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    const end = once(far, 'end');
    await streams.finish();
    await end;
    assert.equal(received, total);
    assert.equal(log.bytes, total);
  });

  it('keeps bytes and their order for a quick client, a slow one and the log together', async () => {
    const streams = make();
    const hashes = [createHash('sha256'), createHash('sha256'), createHash('sha256')] as const;
    const log: LogSink = {
      write: (stream, chunk) => {
        assert.equal(stream, 'stdout');
        hashes[0].update(chunk);
        return Math.random() < 0.05 ? delay(1) : undefined;
      },
      end: async () => {},
    };
    const stdio = await streams.open(directory, log);
    const quick = await socketPair();
    const slow = await socketPair();
    void streams.attach(quick.near, OUTPUT);
    void streams.attach(slow.near, OUTPUT);
    const ends = [quick, slow].map(async ({ far }, index) => {
      for await (const chunk of far) {
        hashes[index + 1]?.update(chunk as Buffer);
        if (index === 1) await delay(1);
      }
    });
    const child = run(stdio, 'seq 1 1000000');
    await delay(50);
    streams.connected();
    await once(child, 'exit');
    await streams.finish();
    await Promise.all(ends);
    const expected = createHash('sha256');
    for (let number = 1; number <= 1_000_000; number += 1) expected.update(`${number}\n`);
    const wanted = expected.digest('hex');
    assert.deepEqual(
      hashes.map((hash) => hash.digest('hex')),
      [wanted, wanted, wanted],
    );
  });

  it('sends the preamble before output that comes meanwhile', async () => {
    const streams = make();
    const stdio = await streams.open(directory, undefined);
    const { near, far } = await socketPair();
    async function* past(): AsyncGenerator<Buffer> {
      yield Buffer.from('one ');
      await delay(150);
      yield Buffer.from('two ');
    }
    void streams.attach(near, { ...OUTPUT, preamble: past() });
    const child = run(stdio, 'printf live');
    await once(child, 'exit');
    const text = readAll(far);
    await streams.finish();
    assert.equal(await text, 'one two live');
  });

  it('finishes although something still holds the output', async () => {
    const streams = make();
    const stdio = await streams.open(directory, undefined);
    run(stdio, 'sleep 60');
    await delay(50);
    const started = performance.now();
    await streams.finish();
    assert.ok(performance.now() - started < 5000);
  });

  it('takes up FIFOs again that a process still writes to', async () => {
    const first = make();
    const stdio = await first.open(directory, undefined);
    const child = run(stdio, 'exec 3<"$1" 4<"$2"; sleep 0.3; printf later');
    await delay(50);
    first.connected();
    await delay(100);
    await first[Symbol.asyncDispose]();
    await delay(50);
    const log = new MemoryLog();
    const second = make();
    await second.reopen(directory, log);
    await once(child, 'exit');
    await second.finish();
    assert.equal(log.text.stdout, 'later');
  });
});
