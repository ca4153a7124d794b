import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { parseStartOutput, shimBinary } from './launcher.ts';
import { BOOTSTRAP_RESULT, formatTimestamp, PROCESS_REQUEST, RPC_REQUEST, STATE_RESPONSE } from './messages.ts';
import { decode, encode } from './protobuf.ts';
import { formatShimAddress, parseShimAddress } from './shim.ts';
import { connectTtrpc, frameMessage, MessageParser, serveTtrpc, statusError, type TtrpcHandler } from './ttrpc.ts';

describe('protobuf codec', () => {
  it('writes the bytes of the specification and leaves defaults out', () => {
    assert.equal(encode(PROCESS_REQUEST, { id: 'ab', execId: '' }).toString('hex'), '0a026162');
    assert.equal(encode(RPC_REQUEST, { timeoutNano: 300n }).toString('hex'), '20ac02');
    assert.equal(encode(RPC_REQUEST, { timeoutNano: -1n }).toString('hex'), '20ffffffffffffffffff01');
  });

  it('reads back what it wrote, with defaults and unknown fields passed over', () => {
    const request = {
      service: 's',
      method: 'm',
      payload: Buffer.from([1]),
      timeoutNano: 2n ** 62n,
      metadata: [{ key: 'k', value: 'v' }],
    };
    assert.deepEqual(decode(RPC_REQUEST, encode(RPC_REQUEST, request)), request);
    const state = decode<{ pid: number; exitedAt: unknown }>(STATE_RESPONSE, Buffer.from('0a01781863', 'hex'));
    assert.equal(state.pid, 99);
    assert.equal(state.exitedAt, undefined);
  });

  it('refuses truncated and malformed messages', () => {
    for (const hex of ['0a05616263', '0a', '20ff', '08', '0f', '20ffffffffffffffffffffff01']) {
      assert.throws(
        () => decode(RPC_REQUEST, Buffer.from(hex, 'hex')),
        { kind: 'system', message: /^malformed protobuf/ },
        hex,
      );
    }
  });

  it('formats times as Go does', () => {
    assert.equal(formatTimestamp({ seconds: 1_600_000_000n, nanos: 120_000_000 }), '2020-09-13T12:26:40.12Z');
    assert.equal(formatTimestamp({ seconds: 1_600_000_000n, nanos: 0 }), '2020-09-13T12:26:40Z');
    assert.equal(formatTimestamp(undefined), '0001-01-01T00:00:00Z');
  });
});

describe('shim start output', () => {
  it('is read in all three forms', () => {
    const path = '/run/containerd/s/abc';
    assert.deepEqual(parseStartOutput(Buffer.from(`unix://${path}\n`)), { path, version: 2 });
    const json = JSON.stringify({ version: 3, address: `unix://${path}`, protocol: 'ttrpc' });
    assert.deepEqual(parseStartOutput(Buffer.from(json)), { path, version: 3 });
    const binary = encode(BOOTSTRAP_RESULT, { version: 3, address: `unix://${path}`, protocol: 'ttrpc' });
    assert.deepEqual(parseStartOutput(binary), { path, version: 3 });
    assert.throws(() => parseStartOutput(Buffer.from('{"version":3,"address":"x","protocol":"grpc"}')), {
      kind: 'notImplemented',
    });
    assert.throws(() => parseStartOutput(Buffer.from('{"version":9,"address":"unix:///x"}')), {
      kind: 'notImplemented',
    });
  });

  it('gives addresses that read back', () => {
    for (const version of [2, 3] as const) {
      const address = { path: '/run/s', version };
      assert.deepEqual(parseShimAddress(formatShimAddress(address)), address);
    }
  });

  it('finds no binary for a name that is none', () => {
    assert.throws(() => shimBinary('runc', '/bin'), { kind: 'invalid' });
    assert.throws(() => shimBinary('io.containerd.none.v9', '/bin'), {
      message:
        'failed to resolve runtime path: runtime "io.containerd.none.v9" binary not installed "containerd-shim-none-v9": file does not exist',
    });
  });
});

describe('ttrpc', () => {
  let directory: string;
  let server: Server;
  let path: string;
  const sockets: Socket[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'gantry-ttrpc-'));
    path = join(directory, 's');
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy();
    server?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function serve(handler: TtrpcHandler): Promise<void> {
    server = createServer((socket) => {
      sockets.push(socket);
      serveTtrpc(socket, handler);
    }).listen(path);
    await once(server, 'listening');
  }

  it('carries many calls at once, answered in any order, with metadata', async () => {
    await serve(async (request) => {
      assert.deepEqual(request.metadata, [{ key: 'ns', value: 'x' }]);
      const turns = request.payload[0] as number;
      for (let turn = 0; turn < 20 - turns; turn += 1) await new Promise(setImmediate);
      return Buffer.from(request.payload);
    });
    using client = await connectTtrpc(path, { ns: 'x' });
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => client.call('s', 'm', Buffer.from([n]))));
    assert.deepEqual(
      answers.map((answer) => answer[0]),
      Array.from({ length: 20 }, (_, n) => n),
    );
  });

  it('gives errors with their class, and unavailable when the peer goes away', async () => {
    await serve((request) => {
      if (request.method === 'fail') throw new Error('it broke');
      return new Promise<Buffer>(() => {});
    });
    using client = await connectTtrpc(path, {});
    await assert.rejects(client.call('s', 'fail', Buffer.alloc(0)), { kind: 'system', message: 'it broke: unknown' });
    const waiting = client.call('s', 'wait', Buffer.alloc(0));
    await new Promise((resolve) => setTimeout(resolve, 20));
    for (const socket of sockets) socket.destroy();
    await assert.rejects(waiting, { kind: 'unavailable' });
    await client.closed;
    await assert.rejects(client.call('s', 'm', Buffer.alloc(0)), { kind: 'unavailable' });
  });

  it('adds the class of a status once', () => {
    assert.equal(
      statusError({ code: 5, message: 'process already finished: not found' }).message,
      'process already finished: not found',
    );
    assert.equal(statusError({ code: 5, message: 'no such thing' }).message, 'no such thing: not found');
    assert.equal(statusError({ code: 2, message: 'x' }).kind, 'system');
  });

  it('puts messages together from any pieces and refuses oversized ones', () => {
    const seen: string[] = [];
    const parser = new MessageParser((type, stream, body) => seen.push(`${type} ${stream} ${body}`));
    const bytes = Buffer.concat([
      frameMessage(1, 1, Buffer.from('one')),
      frameMessage(2, 3, Buffer.alloc(0)),
      frameMessage(2, 5, Buffer.from('x')),
    ]);
    for (const byte of bytes) parser.push(Buffer.from([byte]));
    assert.deepEqual(seen, ['1 1 one', '2 3 ', '2 5 x']);
    const huge = Buffer.alloc(10);
    huge.writeUInt32BE(5 * 1024 * 1024, 0);
    assert.throws(() => parser.push(huge), { message: /exceed maximum message size/ });
  });
});
