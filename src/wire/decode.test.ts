import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError, decodeJson } from './decode.ts';
import { DEFINITIONS } from './engine-schema.ts';

function refusal(text: string, schema = 'ContainerCreateRequest'): string {
  try {
    decodeJson(text, schema);
  } catch (error) {
    assert.ok(error instanceof DecodeError);
    return error.message;
  }
  throw new Error(`${text} was accepted`);
}

test('keys match in any case, the exact one first come, unknown ones are ignored', () => {
  const text = '{"image":"a","HOSTCONFIG":{"memory":5,"nope":{"x":[1]}},"Labels":{"A":"1","a":"2"}}';
  assert.deepEqual(decodeJson(text, 'ContainerCreateRequest'), {
    Image: 'a',
    HostConfig: { Memory: 5 },
    Labels: { A: '1', a: '2' },
  });
});

test('null leaves a field absent and gives zero values in lists and maps', () => {
  const text = '{"Cmd":null,"HostConfig":null,"ExposedPorts":{"80/tcp":null},"Env":["a",null]}';
  assert.deepEqual(decodeJson(text, 'ContainerCreateRequest'), { ExposedPorts: { '80/tcp': {} }, Env: ['a', ''] });
});

test('commands and capabilities may be one string', () => {
  assert.deepEqual(
    decodeJson('{"Cmd":"ls","Entrypoint":["a","b"],"HostConfig":{"CapAdd":"ALL"}}', 'ContainerCreateRequest'),
    {
      Cmd: ['ls'],
      Entrypoint: ['a', 'b'],
      HostConfig: { CapAdd: ['ALL'] },
    },
  );
});

test('type errors have the text of Go', () => {
  const cases: [string, string][] = [
    [
      '{"HostConfig":{"Memory":"1g"}}',
      'string into Go struct field HostConfig.HostConfig.Resources.Memory of type int64',
    ],
    [
      '{"HostConfig":{"Memory":1.5}}',
      'number 1.5 into Go struct field HostConfig.HostConfig.Resources.Memory of type int64',
    ],
    ['{"Env":"a"}', 'string into Go struct field CreateRequest.Config.Env of type []string'],
    ['{"Tty":1}', 'number into Go struct field CreateRequest.Config.Tty of type bool'],
    [
      '{"HostConfig":{"BlkioWeight":70000}}',
      'number 70000 into Go struct field HostConfig.HostConfig.Resources.BlkioWeight of type uint16',
    ],
    ['{"HostConfig":[]}', 'array into Go struct field CreateRequest.HostConfig of type container.HostConfig'],
    ['[]', 'array into Go value of type container.CreateRequest'],
    [
      '{"Healthcheck":{"Interval":"5s"}}',
      'string into Go struct field HealthcheckConfig.Config.Healthcheck.Interval of type time.Duration',
    ],
    ['{"Labels":{"a":1}}', 'number into Go struct field CreateRequest.Config.Labels of type string'],
  ];
  for (const [text, message] of cases) assert.equal(refusal(text), `invalid JSON: json: cannot unmarshal ${message}`);
});

test('of several type errors the first counts, but one of a command wins', () => {
  const into = 'json: cannot unmarshal number into Go struct field CreateRequest.Config';
  assert.equal(refusal('{"Tty":1,"Env":2}'), `invalid JSON: ${into}.Tty of type bool`);
  assert.equal(refusal('{"Tty":1,"Cmd":2}'), `invalid JSON: ${into}.Cmd of type string`);
});

test('syntax errors have the text of Go', () => {
  const cases: [string, string][] = [
    ['{', 'unexpected EOF'],
    ['x', "invalid character 'x' looking for beginning of value"],
    ['{x}', "invalid character 'x' looking for beginning of object key string"],
    ['{"a" 1}', "invalid character '1' after object key"],
    ['{"a":1 2}', "invalid character '2' after object key:value pair"],
    ['[1 2]', "invalid character '2' after array element"],
    ['{"a":"\n"}', "invalid character '\\n' in string literal"],
    ['{"a":"\\x"}', "invalid character 'x' in string escape code"],
    ['{"a":tru}', "invalid character '}' in literal true (expecting 'e')"],
    ['{"a":1.}', "invalid character '}' after decimal point in numeric literal"],
    ['\ufeff{}', "invalid character 'ï' looking for beginning of value"],
    ["'", "invalid character '\\'' looking for beginning of value"],
  ];
  for (const [text, message] of cases) assert.equal(refusal(text), `invalid JSON: ${message}`);
  assert.equal(refusal('{} {}'), 'unexpected content after JSON');
  assert.equal(refusal('['.repeat(5000)), 'invalid JSON: exceeded max depth');
});

test('an empty text is no value and integers beyond 2^53 do not crash', () => {
  assert.equal(decodeJson(' \n', 'HostConfig'), undefined);
  assert.deepEqual(decodeJson('{"Memory":9223372036854775807}', 'HostConfig'), { Memory: 2 ** 63 });
  assert.match(refusal('{"Memory":9223372036854775808}', 'HostConfig'), /number 9223372036854775808/);
});

test('a key called __proto__ stays an ordinary key', () => {
  const decoded = decodeJson<{ Labels: Record<string, string> }>('{"Labels":{"__proto__":"x"}}', 'ContainerConfig');
  assert.deepEqual(Object.entries(decoded?.Labels ?? {}), [['__proto__', 'x']]);
  assert.equal(Object.getPrototypeOf(decoded?.Labels), Object.prototype);
});

test('whatever the document, decoding answers or refuses', () => {
  const names = Object.keys(DEFINITIONS);
  const json = fc.jsonValue();
  fc.assert(
    fc.property(
      fc.constantFrom(...names),
      fc.oneof(
        json.map((value) => JSON.stringify(value)),
        fc.string(),
      ),
      (name, text) => {
        try {
          decodeJson(text, name);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test('documents that JSON.parse accepts are read alike', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value);
      assert.deepEqual(decodeJson(text, 'any'), JSON.parse(text));
    }),
  );
});
