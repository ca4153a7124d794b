/**
 * Generates src/wire/engine.ts (types) and src/wire/engine-schema.ts (decoding tables, operations) from the
 * Engine's OpenAPI file src/wire/engine-api.yaml. `--check` only says whether the generated files are fresh.
 *
 * Objects reachable from a request body have only optional fields, as Go decodes them. The supplement below
 * holds what Docker accepts but the file omits, and the Go names that appear in decoding errors.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parse } from 'yaml';

interface Schema {
  $ref?: string;
  type?: string;
  format?: string;
  title?: string;
  enum?: unknown[];
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  allOf?: Schema[];
  required?: string[];
  'x-nullable'?: boolean;
}
interface Parameter {
  name: string;
  in: string;
  schema?: Schema;
}
interface Operation {
  operationId: string;
  parameters?: Parameter[];
  responses: Record<string, { schema?: Schema }>;
}
interface Document {
  definitions: Record<string, Schema>;
  paths: Record<string, Record<string, Operation>>;
}
interface Definition {
  readonly name: string;
  readonly schema: Schema;
}

const WIRE = new URL('../src/wire/', import.meta.url);

/** Names for request bodies without a title. */
const BODY_NAMES: Readonly<Record<string, string>> = {
  ContainerCreate: 'ContainerCreateRequest',
  ContainerUpdate: 'ContainerUpdateRequest',
  ServiceCreate: 'ServiceCreateRequest',
  ServiceUpdate: 'ServiceUpdateRequest',
};

/** Fields Docker accepts although the OpenAPI file omits them. */
const EXTRA_FIELDS: Readonly<Record<string, Record<string, Schema>>> = {
  Resources: { KernelMemory: { type: 'integer', format: 'int64' } },
  ExecConfig: { Detach: { type: 'boolean' } },
  EndpointSettings: {},
  EventMessage: { status: { type: 'string' }, id: { type: 'string' }, from: { type: 'string' } },
};

/** Kinds that differ from what the file says: `Definition.Field` → kind. */
const KIND_OVERRIDES: Readonly<Record<string, string>> = {
  'Resources.BlkioWeight': 'uint16',
  'ResourcesBlkioWeightDeviceItem.Weight': 'uint16',
  'ContainerConfig.Cmd': 'strslice',
  'ContainerConfig.Entrypoint': 'strslice',
  'ContainerConfig.Shell': 'strslice',
  'HostConfig.CapAdd': 'strslice',
  'HostConfig.CapDrop': 'strslice',
  'HostConfig.NetworkMode': 'string@container.NetworkMode',
  'HostConfig.IpcMode': 'string@container.IpcMode',
  'HostConfig.PidMode': 'string@container.PidMode',
  'HostConfig.UTSMode': 'string@container.UTSMode',
  'HostConfig.UsernsMode': 'string@container.UsernsMode',
  'HostConfig.Cgroup': 'string@container.CgroupSpec',
  'HostConfig.CgroupnsMode': 'string@container.CgroupnsMode',
  'HostConfig.Isolation': 'string@container.Isolation',
  'RestartPolicy.Name': 'string@container.RestartPolicyMode',
  'HealthConfig.Interval': 'int64@time.Duration',
  'HealthConfig.Timeout': 'int64@time.Duration',
  'HealthConfig.StartPeriod': 'int64@time.Duration',
  'HealthConfig.StartInterval': 'int64@time.Duration',
  'Mount.Type': 'string@mount.Type',
  'Mount.Consistency': 'string@mount.Consistency',
  'HostConfig.ConsoleSize': '[]uint',
  'ExecConfig.ConsoleSize': '[]uint',
  'ExecStartConfig.ConsoleSize': '[]uint',
};

/** Go struct names in decoding errors where they differ from the definition's. */
const GO_NAMES: Readonly<Record<string, string>> = {
  ContainerConfig: 'container.Config',
  ContainerCreateRequest: 'container.CreateRequest',
  ContainerUpdateRequest: 'container.UpdateConfig',
  ExecConfig: 'container.ExecOptions',
  ExecStartConfig: 'container.ExecStartOptions',
  HostConfigLogConfig: 'container.LogConfig',
  HealthConfig: 'v1.HealthcheckConfig',
  ResourcesUlimitsItem: 'units.Ulimit',
  ResourcesBlkioWeightDeviceItem: 'blkiodev.WeightDevice',
  ThrottleDevice: 'blkiodev.ThrottleDevice',
  PortBinding: 'nat.PortBinding',
  Mount: 'mount.Mount',
  MountBindOptions: 'mount.BindOptions',
  MountVolumeOptions: 'mount.VolumeOptions',
  MountVolumeOptionsDriverConfig: 'mount.Driver',
  MountTmpfsOptions: 'mount.TmpfsOptions',
  MountImageOptions: 'mount.ImageOptions',
  NetworkingConfig: 'network.NetworkingConfig',
  EndpointSettings: 'network.EndpointSettings',
  EndpointIPAMConfig: 'network.EndpointIPAMConfig',
  IPAM: 'network.IPAM',
  IPAMConfig: 'network.IPAMConfig',
  AuthConfig: 'registry.AuthConfig',
  VolumeCreateOptions: 'volume.CreateOptions',
  NetworkCreateRequest: 'network.CreateRequest',
  NetworkConnectRequest: 'network.ConnectOptions',
  NetworkDisconnectRequest: 'network.DisconnectOptions',
};

/** Routes of the real daemon that the file leaves out. */
const ROUTER_ONLY: readonly (readonly [string, string, string])[] = [
  ['BuildCancel', 'POST', '/build/cancel'],
  ['Grpc', 'POST', '/grpc'],
  ['CheckpointList', 'GET', '/containers/{id}/checkpoints'],
  ['CheckpointCreate', 'POST', '/containers/{id}/checkpoints'],
  ['CheckpointDelete', 'DELETE', '/containers/{id}/checkpoints/{checkpoint}'],
  ['NetworkList', 'GET', '/networks/'],
  ['ContainerArchiveInfo', 'HEAD', '/containers/{id}/archive'],
];

const document = parse(readFileSync(new URL('engine-api.yaml', WIRE), 'utf8'), { merge: true }) as Document;
const definitions: Definition[] = [];
const requestNames = new Set<string>();

function refName(ref: string): string {
  return ref.slice(ref.lastIndexOf('/') + 1);
}

function isStruct(schema: Schema): boolean {
  return schema.properties !== undefined || schema.allOf !== undefined;
}

/** Gives inline objects a name of their own, depth first, and replaces them by references. */
function hoist(schema: Schema, name: string): Schema {
  if (schema.$ref !== undefined) return schema;
  if (isStruct(schema)) {
    addDefinition(name, schema);
    const reference: Schema = { $ref: `#/definitions/${name}` };
    if (schema['x-nullable'] === true) reference['x-nullable'] = true;
    return reference;
  }
  return hoistInside(schema, name);
}

function hoistInside(schema: Schema, name: string): Schema {
  if (schema.items !== undefined) return { ...schema, items: hoist(schema.items, `${name}Item`) };
  const values = schema.additionalProperties;
  if (typeof values === 'object' && Object.keys(values).length > 0) {
    return { ...schema, additionalProperties: hoist(values, `${name}Value`) };
  }
  return schema;
}

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function addDefinition(name: string, schema: Schema): void {
  if (definitions.some((definition) => definition.name === name)) return;
  if (!isStruct(schema)) {
    definitions.push({ name, schema: hoistInside(schema, name) });
    return;
  }
  const parts = schema.allOf ?? [schema];
  const allOf: Schema[] = [];
  const properties: Record<string, Schema> = {};
  const required: string[] = [...(schema.required ?? [])];
  const slot: Definition = { name, schema: { allOf, properties, required } };
  definitions.push(slot);
  for (const part of parts) {
    if (part.$ref !== undefined) allOf.push(part);
    required.push(...(part === schema ? [] : (part.required ?? [])));
    for (const [field, value] of Object.entries(part.properties ?? {})) {
      properties[field] = hoist(value, `${name}${upperFirst(field)}`);
    }
  }
  Object.assign(properties, EXTRA_FIELDS[name]);
}

function markRequest(name: string): void {
  if (requestNames.has(name)) return;
  requestNames.add(name);
  const visit = (schema: Schema | boolean | undefined): void => {
    if (typeof schema !== 'object') return;
    if (schema.$ref !== undefined) markRequest(refName(schema.$ref));
    visit(schema.items);
    visit(schema.additionalProperties);
    schema.allOf?.forEach(visit);
    for (const value of Object.values(schema.properties ?? {})) visit(value);
  };
  visit(definitions.find((definition) => definition.name === name)?.schema);
}

/** The name of a body's definition; inline bodies become definitions named by title or operation. */
function bodyName(schema: Schema, fallback: string): string | undefined {
  if (schema.$ref !== undefined) return refName(schema.$ref);
  if (isStruct(schema)) {
    const name = schema.title ?? fallback;
    addDefinition(name, schema);
    return name;
  }
  const item = schema.items;
  if (item !== undefined && item.$ref === undefined && isStruct(item)) {
    addDefinition(`${fallback.replace(/Response$/, '')}ResponseItem`, item);
  }
  return undefined;
}

function operations(): string[] {
  const rows: string[] = [];
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const id = operation.operationId;
      const query = (operation.parameters ?? []).filter((parameter) => parameter.in === 'query');
      const body = (operation.parameters ?? []).find((parameter) => parameter.in === 'body');
      let request: string | undefined;
      if (body?.schema !== undefined) {
        request = bodyName(body.schema, BODY_NAMES[id] ?? `${id}Request`);
        if (request !== undefined) markRequest(request);
      }
      const success = Object.entries(operation.responses).filter(([code]) => Number(code) < 300);
      const responses = success
        .map(([code, response]) => `${code}: ${JSON.stringify(responseKind(response.schema, `${id}Response`))}`)
        .join(', ');
      rows.push(
        operationRow(
          [id, method.toUpperCase(), path],
          query.map((parameter) => parameter.name),
          { request, responses },
        ),
      );
    }
  }
  const known = new Set(rows.map((row) => row.slice(0, row.indexOf(', query'))));
  for (const identity of ROUTER_ONLY) {
    const row = operationRow(identity, [], { request: undefined, responses: '' });
    if (!known.has(row.slice(0, row.indexOf(', query')))) rows.push(row);
  }
  return rows;
}

function responseKind(schema: Schema | undefined, fallback: string): string {
  if (schema === undefined) return '';
  const name = bodyName(schema, fallback);
  if (name !== undefined) return `$${name}`;
  const item = schema.items;
  if (item === undefined) return kindOf(schema);
  return item.$ref === undefined && isStruct(item)
    ? `[]$${fallback.replace(/Response$/, '')}ResponseItem`
    : kindOf(schema);
}

function operationRow(
  [id, method, path]: readonly [string, string, string],
  query: readonly string[],
  body: { request: string | undefined; responses: string },
): string {
  const quote = (text: string): string => `'${text}'`;
  const fields = [
    `id: ${quote(id)}`,
    `method: ${quote(method)}`,
    `path: ${quote(path)}`,
    `query: [${query.map(quote).join(', ')}]`,
  ];
  if (body.request !== undefined) fields.push(`request: ${quote(body.request)}`);
  fields.push(`responses: {${body.responses === '' ? '' : ` ${body.responses.replaceAll('"', "'")} `}}`);
  return `  { ${fields.join(', ')} },`;
}

/** The TypeScript type of a schema. */
function typeOf(schema: Schema): string {
  const nullable = schema['x-nullable'] === true ? ' | null' : '';
  return `${bareType(schema)}${nullable}`;
}

function bareType(schema: Schema): string {
  if (schema.$ref !== undefined) return refName(schema.$ref);
  const literals = (schema.enum ?? []).filter((value) => typeof value === 'string');
  if (literals.length > 0) return literals.map((value) => `'${value}'`).join(' | ');
  switch (schema.type) {
    case 'string':
      return 'string';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'array': {
      const item = typeOf(schema.items ?? {});
      return /[ |]/.test(item) && !item.startsWith('Record') ? `(${item})[]` : `${item}[]`;
    }
    default:
      return mapType(schema);
  }
}

function mapType(schema: Schema): string {
  const values = schema.additionalProperties;
  if (schema.type !== 'object') return 'unknown';
  if (typeof values !== 'object' || Object.keys(values).length === 0) return 'Record<string, unknown>';
  const isEmptyStruct = values.type === 'object' && values.additionalProperties === undefined;
  return isEmptyStruct ? 'Record<string, Record<string, never>>' : `Record<string, ${typeOf(values)}>`;
}

/** The decoding kind of a schema: see the grammar in the generated file. */
function kindOf(schema: Schema): string {
  if (schema.$ref !== undefined) return `$${refName(schema.$ref)}`;
  switch (schema.type) {
    case 'string':
      return 'string';
    case 'integer':
      return schema.format ?? 'int';
    case 'number':
      return 'float64';
    case 'boolean':
      return 'bool';
    case 'array':
      return `[]${kindOf(schema.items ?? {})}`;
    default: {
      const values = schema.additionalProperties;
      if (schema.type !== 'object' || typeof values !== 'object' || Object.keys(values).length === 0) return 'any';
      if (values.type === 'object' && values.additionalProperties === undefined) return '{}struct';
      return `{}${kindOf(values)}`;
    }
  }
}

function writeType({ name, schema }: Definition): string {
  if (schema.properties === undefined) return `export type ${name} = ${typeOf(schema)};\n`;
  const parents = (schema.allOf ?? []).map((part) => refName(part.$ref ?? ''));
  const optionalAlways = requestNames.has(name);
  const lines = Object.entries(schema.properties).map(([field, value]) => {
    const key = /^[A-Za-z_]\w*$/.test(field) ? field : `'${field}'`;
    const isRequired = !optionalAlways && (schema.required ?? []).includes(field);
    return isRequired ? `  ${key}: ${typeOf(value)};` : `  ${key}?: ${typeOf(value)} | undefined;`;
  });
  const heritage = parents.length > 0 ? ` extends ${parents.join(', ')}` : '';
  return lines.length > 0
    ? `export interface ${name}${heritage} {\n${lines.join('\n')}\n}\n`
    : `export type ${name} = ${parents.join(' & ') || 'Record<string, unknown>'};\n`;
}

function writeSchema({ name, schema }: Definition): string {
  if (schema.properties === undefined) return `  ${name}: { kind: '${kindOf(schema)}' },`;
  const embeds = (schema.allOf ?? []).map((part) => `'${refName(part.$ref ?? '')}'`);
  const fields = Object.entries(schema.properties).map(
    ([field, value]) => `      '${field}': '${KIND_OVERRIDES[`${name}.${field}`] ?? kindOf(value)}',`,
  );
  const head = `go: '${GO_NAMES[name] ?? name}', embeds: [${embeds.join(', ')}]`;
  return `  ${name}: {\n    ${head},\n    fields: {\n${fields.join('\n')}\n    },\n  },`;
}

const BANNER =
  '// Generated by dev-tools/generate-wire.ts from engine-api.yaml; do not edit.\n// biome-ignore-all format: generated\n// biome-ignore-all lint: generated\n';

const SCHEMA_HEAD = `/**
 * Decoding tables of the Engine API. A kind is: string, bool, int, int64 … float64, any, struct (empty object),
 * strslice (one string or a list), $Name (definition), []kind (list), {}kind (map); \`@go.Type\` names the Go type
 * that error texts mention.
 */
export interface StructSchema {
  readonly go: string;
  readonly embeds: readonly string[];
  readonly fields: Readonly<Record<string, string>>;
}
export interface AliasSchema {
  readonly kind: string;
}
export type DefinitionSchema = StructSchema | AliasSchema;
export interface OperationSchema {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly query: readonly string[];
  /** Definition of the JSON request body. */
  readonly request?: string;
  /** Success status → kind of the body, empty for none. */
  readonly responses: Readonly<Record<number, string>>;
}
`;

function generate(): ReadonlyMap<string, string> {
  for (const [name, schema] of Object.entries(document.definitions)) addDefinition(name, schema);
  const rows = operations();
  const unions = definitions.map(writeType).join('\n');
  const names = definitions.map(writeSchema).join('\n');
  const title =
    '/** Types of the Engine API 1.51, one per definition; string unions are not checked by the decoder. */\n';
  return new Map([
    ['engine.ts', `${BANNER}${title}\n${unions}`],
    [
      'engine-schema.ts',
      `${BANNER}${SCHEMA_HEAD}\nexport const DEFINITIONS: Readonly<Record<string, DefinitionSchema>> = {\n${names}\n};\n\n` +
        `export const OPERATIONS: readonly OperationSchema[] = [\n${rows.join('\n')}\n];\n`,
    ],
  ]);
}

const isCheck = process.argv.includes('--check');
for (const [file, text] of generate()) {
  const url = new URL(file, WIRE);
  if (!isCheck) writeFileSync(url, text);
  else if (readFileSync(url, 'utf8') !== text) {
    console.error(`src/wire/${file} is stale: run dev-tools/generate-wire.ts`);
    process.exitCode = 1;
  }
}
