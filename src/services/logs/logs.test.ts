import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { LogInfo, LogReadOptions, LogRecord } from './contract.ts';
import { FileLogDrivers } from './drivers.ts';
import { encodeLogRecord, encodeLogRecords } from './stream-format.ts';

const ALL: LogReadOptions = {
  stdout: true,
  stderr: true,
  sinceNs: undefined,
  untilNs: undefined,
  tail: undefined,
  follow: false,
};

describe('log drivers', () => {
  let directory: string;
  const reports: string[] = [];
  const drivers = new FileLogDrivers((text) => reports.push(text));

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'gantry-logs-'));
    reports.length = 0;
  });
  afterEach(() => {
    rmSync(directory, { recursive: true, force: true });
    assert.deepEqual(reports, []);
  });

  function info(driver: string, options: Record<string, string> = {}): LogInfo {
    return {
      containerId: 'c'.repeat(64) as LogInfo['containerId'],
      containerName: 'web',
      imageId: `sha256:${'a'.repeat(64)}`,
      imageName: 'busybox',
      labels: { team: 'one', 'other.key': '<two>' },
      env: ['A=1', 'B=2'],
      directory,
      driver,
      options,
    };
  }

  async function read(log: LogInfo, options: Partial<LogReadOptions> = {}): Promise<LogRecord[]> {
    const records: LogRecord[] = [];
    const signal = new AbortController().signal;
    for await (const record of drivers.read(log, { ...ALL, ...options }, signal)) records.push(record);
    return records;
  }

  const texts = (records: readonly LogRecord[]): string[] => records.map((record) => record.line.toString());

  it('refuses unknown drivers and options with the texts of docker', () => {
    drivers.validate('json-file', { 'max-size': '1m', mode: 'blocking', tag: 'x' });
    drivers.validate('none', { whatever: '1' });
    const refusals: [string, Record<string, string>, string][] = [
      ['nope', {}, 'error looking up logging plugin nope: plugin "nope" not found'],
      ['json-file', { colour: 'red' }, "unknown log opt 'colour' for json-file log driver"],
      ['local', { colour: 'red' }, "unknown log opt 'colour' for log driver local"],
      ['json-file', { mode: 'maybe' }, 'logger: logging mode not supported: maybe'],
      [
        'local',
        { 'max-buffer-size': '1m' },
        "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
      ],
    ];
    for (const [driver, options, message] of refusals) {
      assert.throws(() => drivers.validate(driver, options), { kind: 'invalid', message });
    }
  });

  it('refuses impossible values when the log is opened', async () => {
    await assert.rejects(drivers.open(info('json-file', { 'max-size': '-1' })), { message: "invalid size: '-1'" });
    await assert.rejects(drivers.open(info('json-file', { 'max-file': '0' })), {
      message: 'max-file cannot be less than 1',
    });
    await assert.rejects(drivers.open(info('json-file', { compress: 'true' })), {
      message: 'compress cannot be true when max-file is less than 2 or max-size is not set',
    });
    await assert.rejects(drivers.open(info('local', { 'max-file': '1' })), {
      message: 'compression cannot be enabled when max file count is 1',
    });
  });

  it('writes json-file entries byte for byte as docker does', async () => {
    const log = info('json-file', { labels: 'team', 'labels-regex': '^other', env: 'B', tag: '{{.Name}}/{{.ID}}' });
    const writer = await drivers.open(log);
    writer.write('stdout', Buffer.from('plain\n"q" \\ <&> \t\r\x7f ü \u2028\n\n'));
    writer.write('stderr', Buffer.from([0x61, 0xff, 0xc3, 0x28, 0x0a]));
    writer.write('stdout', Buffer.from('no end'));
    await writer.end();
    const lines = readFileSync(drivers.path(log), 'utf8').split('\n');
    const end = (stream: string): string =>
      `","stream":"${stream}","attrs":{"B":"2","other.key":"\\u003ctwo\\u003e","tag":"web/cccccccccccc","team":"one"},"time":"T"}`;
    assert.deepEqual(
      lines.map((line) => line.replace(/"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"/, '"time":"T"')),
      [
        `{"log":"plain\\n${end('stdout')}`,
        `{"log":"\\"q\\" \\\\ \\u003c\\u0026\\u003e \\u0009\\r\x7f ü \\u2028\\n${end('stdout')}`,
        `{"log":"\\n${end('stdout')}`,
        `{"log":"a\\ufffd\\ufffd(\\n${end('stderr')}`,
        `{"log":"no end${end('stdout')}`,
        '',
      ],
    );
    assert.deepEqual(texts(await read(log)), ['plain\n', '"q" \\ <&> \t\r\x7f ü \u2028\n', '\n', 'a��(\n', 'no end']);
    assert.deepEqual(texts(await read(log, { stdout: false })), ['a��(\n']);
  });

  for (const driver of ['json-file', 'local']) {
    describe(driver, () => {
      it('gives back what was written, whatever the chunks, with long lines in parts', async () => {
        const log = info(driver);
        const writer = await drivers.open(log);
        const text = `one\n${'x'.repeat(16 * 1024)}\n${'y'.repeat(40_000)}\ntwo\n${'z'.repeat(16 * 1024 - 1)}\nend`;
        for (let at = 0; at < text.length; at += 777) writer.write('stdout', Buffer.from(text.slice(at, at + 777)));
        await writer.end();
        const records = await read(log);
        assert.equal(texts(records).join(''), text);
        assert.deepEqual(
          records.map((record) => record.line.length),
          [4, 16384, 1, 16384, 16384, 7233, 4, 16384, 3],
        );
        assert.equal(records[1]?.timeNs, records[2]?.timeNs);
      });

      it('rotates at the size, keeps as many files as asked, and reads over all of them', async () => {
        const log = info(driver, { 'max-size': '10k', 'max-file': '3', compress: 'false' });
        const writer = await drivers.open(log);
        for (let line = 0; line < 1000; line += 1)
          writer.write('stdout', Buffer.from(`line ${line} ${'.'.repeat(40)}\n`));
        await writer.end();
        const path = drivers.path(log) || join(directory, 'local-logs/container.log');
        for (const file of [path, `${path}.1`, `${path}.2`]) assert.ok(statSync(file).size < 10_400, file);
        assert.ok(statSync(`${path}.1`).size >= 10_000);
        assert.ok(!existsSync(`${path}.3`));
        const kept = texts(await read(log)).map((text) => Number(text.split(' ')[1]));
        assert.equal(kept.at(-1), 999);
        assert.ok(kept.length > 150 && kept.length < 1000);
        assert.deepEqual(
          kept,
          kept.map((_, index) => 1000 - kept.length + index),
        );
        for (const tail of [0, 1, 60, 150, 5000]) {
          const tailed = texts(await read(log, { tail })).map((text) => Number(text.split(' ')[1]));
          assert.deepEqual(tailed, kept.slice(Math.max(0, kept.length - tail)), `tail ${tail}`);
        }
      });

      it('compresses rotated files and reads them', async () => {
        const log = info(driver, { 'max-size': '10k', 'max-file': '4', compress: 'true' });
        const writer = await drivers.open(log);
        for (let line = 0; line < 400; line += 1) {
          await writer.write('stdout', Buffer.from(`line ${line} ${'.'.repeat(40)}\n`));
        }
        await writer.end();
        const folder = driver === 'local' ? join(directory, 'local-logs') : directory;
        assert.ok(readdirSync(folder).some((name) => name.endsWith('.1.gz')));
        assert.ok(!readdirSync(folder).some((name) => name.endsWith('.tmp')));
        const kept = texts(await read(log)).map((text) => Number(text.split(' ')[1]));
        assert.deepEqual(
          kept,
          kept.map((_, index) => 400 - kept.length + index),
        );
        const tailed = texts(await read(log, { tail: 200 })).map((text) => Number(text.split(' ')[1]));
        assert.deepEqual(tailed, kept.slice(-200));
      });

      it('follows across rotations and ends with the writer', async () => {
        const log = info(driver, { 'max-size': '5k', 'max-file': '50', compress: 'false' });
        const writer = await drivers.open(log);
        writer.write('stdout', Buffer.from('0\n'));
        const following = read(log, { follow: true });
        for (let line = 1; line < 1000; line += 1) {
          writer.write('stdout', Buffer.from(`${line}\n`));
          if (line % 50 === 0) await delay(1);
        }
        await delay(20);
        await writer.end();
        assert.deepEqual(
          texts(await following).map(Number),
          Array.from({ length: 1000 }, (_, index) => index),
        );
      });

      it('follows from the tail, gives lines as they come, and stops when aborted', async () => {
        const log = info(driver);
        const writer = await drivers.open(log);
        writer.write('stdout', Buffer.from('old\nlast\n'));
        const abort = new AbortController();
        const seen: string[] = [];
        const done = (async () => {
          for await (const record of drivers.read(log, { ...ALL, tail: 1, follow: true }, abort.signal)) {
            seen.push(record.line.toString());
          }
        })();
        await delay(30);
        assert.deepEqual(seen, ['last\n']);
        writer.write('stderr', Buffer.from('new\n'));
        await delay(30);
        assert.deepEqual(seen, ['last\n', 'new\n']);
        abort.abort();
        await done;
        await writer.end();
      });

      it('chooses by time', async () => {
        const log = info(driver);
        const writer = await drivers.open(log);
        for (const text of ['a\n', 'b\n', 'c\n']) {
          writer.write('stdout', Buffer.from(text));
          await delay(5);
        }
        await writer.end();
        const middle = (await read(log))[1]?.timeNs as bigint;
        assert.deepEqual(texts(await read(log, { sinceNs: middle })), ['b\n', 'c\n']);
        assert.deepEqual(texts(await read(log, { untilNs: middle })), ['a\n', 'b\n']);
      });

      it('survives a last entry torn by a crash', async () => {
        const log = info(driver);
        let writer = await drivers.open(log);
        writer.write('stdout', Buffer.from('one\ntwo\ntorn line\n'));
        await writer.end();
        const path = drivers.path(log) || join(directory, 'local-logs/container.log');
        truncateSync(path, statSync(path).size - 9);
        assert.deepEqual(texts(await read(log)), ['one\n', 'two\n']);
        writer = await drivers.open(log);
        writer.write('stdout', Buffer.from('after\n'));
        await writer.end();
        assert.deepEqual(texts(await read(log)), ['one\n', 'two\n', 'after\n']);
        assert.equal(texts(await read(log, { tail: 1 })).at(-1), 'after\n');
      });
    });
  }

  it('passes over lines that are no entries', async () => {
    const log = info('json-file');
    const writer = await drivers.open(log);
    writer.write('stdout', Buffer.from('one\n'));
    await writer.end();
    appendFileSync(
      drivers.path(log),
      '\0\0\0\nnull\n{"log":"x","time":"never"}\n{"log":"two\\n","stream":"stdout","time":"2020-01-01T00:00:00Z"}\n',
    );
    assert.deepEqual(texts(await read(log)), ['one\n', 'two\n']);
  });

  it('discards with none and says that it cannot be read', async () => {
    const writer = await drivers.open(info('none'));
    writer.write('stdout', Buffer.from('gone\n'));
    await writer.end();
    assert.throws(() => drivers.read(info('none'), ALL, new AbortController().signal), {
      kind: 'notImplemented',
      message: 'configured logging driver does not support reading',
    });
    assert.deepEqual(readdirSync(directory), []);
  });

  it('sends records with timestamps, details and frames', async () => {
    const record: LogRecord = {
      stream: 'stderr',
      line: Buffer.from('hi\n'),
      timeNs: 1_600_000_000_120_000_000n,
      attributes: { b: '2 &', a: '1' },
    };
    const text = encodeLogRecord(record, { timestamps: true, details: true, multiplexed: true }).toString('latin1');
    assert.equal(text, '\x02\0\0\0\0\0\0\x2e2020-09-13T12:26:40.120000000Z a=1,b=2+%26 hi\n');
    const plain = { timestamps: false, details: false, multiplexed: false };
    assert.equal(encodeLogRecords([record, record], plain).toString(), 'hi\nhi\n');
  });
});
