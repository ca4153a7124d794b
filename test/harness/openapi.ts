/**
 * Checks JSON answers against the definitions of the Engine's own OpenAPI file: types, required fields, enums.
 * Null is accepted where Go writes null for an empty slice, map or pointer.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { parse } from 'yaml';

interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly additionalProperties?: Schema | boolean;
  readonly allOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
}

interface Operation {
  readonly responses: Readonly<Record<string, { readonly schema?: Schema }>>;
}

interface Specification {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly definitions: Readonly<Record<string, Schema>>;
}

/** Deep enough for every answer of the API, and an end for recursive definitions. */
const MAX_DEPTH = 30;

const specification: Specification = parse(
  readFileSync(join(import.meta.dirname, '../../src/wire/engine-api.yaml'), 'utf8'),
);

/** Every way in which `value` departs from what the operation promises for this status; empty when it conforms. */
export function violations(operation: string, status: number, value: unknown): string[] {
  const [method = '', path = ''] = operation.split(' ');
  const responses = specification.paths[path]?.[method.toLowerCase()]?.responses;
  if (responses === undefined) return [`the OpenAPI has no ${operation}`];
  const response = responses[String(status)];
  if (response === undefined) return [`${operation} has no response ${status}`];
  return response.schema === undefined ? [] : check(response.schema, value, '$', 0);
}

function check(schema: Schema, value: unknown, at: string, depth: number): string[] {
  if (depth > MAX_DEPTH || value === null) return [];
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split('/').at(-1) ?? '';
    const target = specification.definitions[name];
    return target === undefined ? [`${at}: no definition ${name}`] : check(target, value, at, depth + 1);
  }
  const fromAll = (schema.allOf ?? []).flatMap((part) => check(part, value, at, depth + 1));
  // Compat: Docker leaves an enum field empty where it has no value.
  const outside =
    schema.enum !== undefined && value !== '' && !schema.enum.some((one) => isDeepStrictEqual(one, value));
  return [
    ...fromAll,
    ...(outside ? [`${at}: ${JSON.stringify(value)} is none of ${JSON.stringify(schema.enum)}`] : []),
    ...checkType(schema, value, at, depth),
  ];
}

function checkType(schema: Schema, value: unknown, at: string, depth: number): string[] {
  const wrong = [`${at}: expected ${schema.type}, got ${JSON.stringify(value)?.slice(0, 80)}`];
  switch (schema.type) {
    case 'string':
      return typeof value === 'string' ? [] : wrong;
    case 'boolean':
      return typeof value === 'boolean' ? [] : wrong;
    case 'integer':
      return Number.isInteger(value) ? [] : wrong;
    case 'number':
      return typeof value === 'number' ? [] : wrong;
    case 'array':
      if (!Array.isArray(value)) return wrong;
      return schema.items === undefined
        ? []
        : value.flatMap((item, index) => check(schema.items as Schema, item, `${at}[${index}]`, depth + 1));
    default:
      return schema.type === 'object' || schema.properties !== undefined ? checkObject(schema, value, at, depth) : [];
  }
}

function checkObject(schema: Schema, value: unknown, at: string, depth: number): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${at}: expected an object`];
  const fields = value as Readonly<Record<string, unknown>>;
  const missing = (schema.required ?? [])
    .filter((name) => !(name in fields))
    .map((name) => `${at}: ${name} is missing`);
  const inner = Object.entries(fields).flatMap(([name, field]) => {
    const known = schema.properties?.[name];
    if (known !== undefined) return check(known, field, `${at}.${name}`, depth + 1);
    const rest = schema.additionalProperties;
    return typeof rest === 'object' ? check(rest, field, `${at}.${name}`, depth + 1) : [];
  });
  return [...missing, ...inner];
}
