/**
 * The classic builder: a Dockerfile's stages run in order, each instruction becomes an image, and an image
 * whose parent and step are the same as before is used again. Its progress text is docker's.
 */
import {
  applyConfigInstruction,
  commandOf,
  environmentOf,
  isConfigInstruction,
  joinWorkdir,
  shellOf,
} from '#services/build/config-instructions.ts';
import {
  type Dockerfile,
  type DockerfileInstruction,
  parseDockerfile,
  parseError,
  parseJsonForm,
  readInstruction,
  splitWords,
} from '#services/build/dockerfile.ts';
import { expandWord } from '#services/build/expand.ts';
import { goJson, orderRunConfig } from '#services/images/config.ts';
import type { Image, ImageRunConfig } from '#services/images/contract.ts';
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import { makeEntry, type TarCodec, type TarPiece, writeArchive } from '#services/images/tar-codec.ts';
import { nowNs } from '#system/clock/clock.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import type { Platform } from '#types/platform.ts';
import { familiarString, type Reference } from '#types/reference.ts';
import { createChildImage } from '../images/commit.ts';
import { resolveForPlatform } from '../images/inspect.ts';
import { commitSnapshot, importLayer } from '../images/layer.ts';
import type { WriteProgress } from '../images/progress.ts';
import { type EmitEvent, imageAttributes } from '../images/remove.ts';
import { nameImage } from '../images/tag.ts';
import { BuildArguments } from './arguments.ts';
import { cleanRelative, type SourceTree } from './context.ts';
import { combinedHash, type CopyLookup, findSources, planCopy } from './copy.ts';
import { resolveOwner, RootView } from './rootfs.ts';

/** A container that one RUN uses. */
export interface BuildContainer {
  readonly id: string;
  readonly snapshotKey: string;
  /** Runs to the end; resolves to the exit code. */
  run(output: (chunk: Buffer) => Promise<void> | void, signal?: AbortSignal): Promise<number>;
  remove(): Promise<void>;
}

/** Makes containers for RUN; supplied by the container engine. */
export type CreateBuildContainer = (step: {
  image: Image;
  config: ImageRunConfig;
  resources: BuildResources;
}) => Promise<BuildContainer>;

/** Limits and surroundings of RUN containers, in HostConfig's terms. */
export type BuildResources = Readonly<Record<string, unknown>>;

export interface BuildContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
  readonly createContainer: CreateBuildContainer;
  readonly write: WriteProgress;
}

export interface BuildOptions {
  readonly dockerfile: string;
  readonly files: SourceTree;
  readonly tags: readonly Reference[];
  readonly arguments: Readonly<Record<string, string | null>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly target: string;
  readonly noCache: boolean;
  readonly remove: boolean;
  readonly forceRemove: boolean;
  readonly quiet: boolean;
  readonly platform?: Platform;
  readonly resources: BuildResources;
}

/** A failed RUN; its code goes into errorDetail. */
export class BuildStepError extends GantryError {
  readonly code: number;

  constructor(message: string, code: number) {
    super('system', message);
    this.code = code;
  }
}

interface StageState {
  readonly name: string;
  image: Image | undefined;
  config: ImageRunConfig;
  cmdSet: boolean;
  maintainer: string;
  cacheBusted: boolean;
  readonly arguments: BuildArguments;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Builds and tags; returns the image. */
export async function buildImage(context: BuildContext, options: BuildOptions, signal?: AbortSignal): Promise<Image> {
  const file = parseDockerfile(options.dockerfile);
  using hold = context.images.hold();
  const builder = new Builder(context, options, { file, hold, signal });
  const image = await builder.build();
  const say = (text: string): Promise<void> | void => context.write({ stream: text });
  context.emit('image', 'create', image.id, imageAttributes(image, image.id));
  if (options.quiet) await say(`${image.id}\n`);
  else await say(`Successfully built ${short(image.id)}\n`);
  for (const reference of options.tags) {
    nameImage(context.images, image.id, { reference, emit: context.emit });
    if (!options.quiet) await say(`Successfully tagged ${familiarString(reference)}\n`);
  }
  return image;
}

const short = (id: Digest | undefined): string => (id === undefined ? '' : shortId(id.slice('sha256:'.length)));

interface Stage {
  readonly from: DockerfileInstruction;
  readonly name: string;
  readonly instructions: DockerfileInstruction[];
}

function splitStages(file: Dockerfile): { globals: DockerfileInstruction[]; stages: Stage[] } {
  const globals: DockerfileInstruction[] = [];
  const stages: Stage[] = [];
  for (const instruction of file.instructions) {
    if (instruction.name === 'from') {
      const words = instruction.rest.split(/\s+/).filter((word) => word !== '');
      if (words.length !== 1 && !(words.length === 3 && words[1]?.toLowerCase() === 'as')) {
        throw parseError(instruction.line, 'FROM requires either one or three arguments');
      }
      const name = (words[2] ?? '').toLowerCase();
      if (words.length === 3 && !/^[a-z][a-z0-9-_.]*$/.test(name)) {
        throw parseError(
          instruction.line,
          `invalid name for build stage: "${words[2]}", name can't start with a number or contain symbols`,
        );
      }
      if (name !== '' && stages.some((stage) => stage.name === name))
        throw new GantryError('invalid', `${name} stage name already used`);
      stages.push({ from: instruction, name, instructions: [] });
    } else if (stages.length > 0) stages.at(-1)?.instructions.push(instruction);
    else if (instruction.name === 'arg') globals.push(instruction);
    else throw parseError(instruction.line, 'no build stage in current context');
  }
  if (stages.length === 0) throw new GantryError('invalid', 'no build stage in current context');
  return { globals, stages };
}

class Builder {
  readonly #context: BuildContext;
  readonly #options: BuildOptions;
  readonly #file: Dockerfile;
  readonly #hold: LayerHold;
  readonly #signal: AbortSignal | undefined;
  readonly #done: StageState[] = [];

  constructor(
    context: BuildContext,
    options: BuildOptions,
    own: { file: Dockerfile; hold: LayerHold; signal: AbortSignal | undefined },
  ) {
    this.#context = context;
    this.#options = options;
    this.#file = own.file;
    this.#hold = own.hold;
    this.#signal = own.signal;
  }

  async #say(text: string): Promise<void> {
    if (!this.#options.quiet) await this.#context.write({ stream: text });
  }

  async build(): Promise<Image> {
    const { globals, stages: all } = splitStages(this.#file);
    const stages = this.#upToTarget(all);
    const labels = Object.entries(this.#options.labels).sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [key, value] of labels) {
      const text = `LABEL ${JSON.stringify(key)}=${JSON.stringify(value).replaceAll('$', '\\$')}`;
      stages
        .at(-1)
        ?.instructions.push({ ...readInstruction(text, 0), original: `LABEL ${key}=${value}`, heredocs: [] });
    }
    const total = globals.length + stages.reduce((sum, stage) => sum + 1 + stage.instructions.length, 0);
    let step = 0;
    const announce = (text: string): Promise<void> => {
      step += 1;
      return this.#say(`Step ${step}/${total} : ${text}\n`);
    };
    for (const warning of this.#file.warnings) await this.#say(`${warning}\n`);
    const args = new BuildArguments(this.#options.arguments);
    for (const global of globals) {
      await announce(global.original);
      for (const [key, value] of this.#argPairs(global, args.meta())) args.addMeta(key, value);
    }
    for (const stage of stages) {
      await announce(stage.from.original);
      const state = await this.#begin(stage, args);
      await this.#say(` ---> ${short(state.image?.id)}\n`);
      for (const instruction of stage.instructions) {
        this.#signal?.throwIfAborted();
        await announce(instruction.original);
        await this.#step(state, instruction);
        await this.#say(` ---> ${short(state.image?.id)}\n`);
      }
      if (state.image !== undefined) await this.#context.write({ aux: { ID: state.image.id } });
      args.merge(state.arguments);
      this.#done.push(state);
    }
    const unused = args.unused();
    if (unused.length > 0)
      await this.#say(`[Warning] One or more build-args [${unused.join(' ')}] were not consumed\n`);
    const image = this.#done.at(-1)?.image;
    if (image === undefined) throw new GantryError('system', 'No image was generated. Is your Dockerfile empty?');
    return image;
  }

  #upToTarget(stages: Stage[]): Stage[] {
    const { target } = this.#options;
    if (target === '') return stages;
    const byName = stages.findIndex((stage) => stage.name === target.toLowerCase());
    const index = byName >= 0 ? byName : /^\d+$/.test(target) ? Number(target) : -1;
    if (index < 0 || index >= stages.length)
      throw new GantryError('invalid', `target stage "${target}" could not be found`);
    return stages.slice(0, index + 1);
  }

  #argPairs(
    instruction: DockerfileInstruction,
    variables: ReadonlyMap<string, string>,
  ): [string, string | undefined][] {
    if (instruction.rest === '') throw parseError(instruction.line, 'ARG requires at least one argument');
    return splitWords(instruction.rest, this.#file.escape).map((word) => {
      const equals = word.indexOf('=');
      const expand = (text: string): string => expandWord(text, this.#file.escape, variables);
      return equals < 0 ? [expand(word), undefined] : [expand(word.slice(0, equals)), expand(word.slice(equals + 1))];
    });
  }

  async #begin(stage: Stage, args: BuildArguments): Promise<StageState> {
    const written = stage.from.rest.split(/\s+/)[0] ?? '';
    const base = expandWord(written, this.#file.escape, args.meta());
    if (base === '') throw new GantryError('invalid', `base name (${written}) should not be blank`);
    for (const flag of stage.from.flags)
      if (!flag.startsWith('platform=')) throw parseError(stage.from.line, `unknown flag: --${flag.split('=', 1)[0]}`);
    const earlier = this.#done.find((done) => done.name !== '' && done.name === base.toLowerCase());
    const image =
      base === 'scratch'
        ? undefined
        : (earlier?.image ?? resolveForPlatform(this.#context.images, base, this.#options.platform));
    const { Image: _image, ...inherited } = image?.config.config ?? {};
    const env = [...(inherited.Env ?? [])];
    if (!environmentOf(env).has('PATH')) env.push(`PATH=${DEFAULT_PATH}`);
    const triggers = inherited.OnBuild ?? [];
    const config = { ...inherited, Env: env, OnBuild: null, OpenStdin: false, StdinOnce: false };
    const state: StageState = {
      name: stage.name,
      image,
      config,
      cmdSet: false,
      maintainer: '',
      cacheBusted: this.#options.noCache,
      arguments: args.forStage(),
    };
    if (triggers.length > 0)
      await this.#say(`# Executing ${triggers.length} build trigger${triggers.length > 1 ? 's' : ''}\n`);
    for (const trigger of triggers)
      await this.#step(state, { ...readInstruction(trigger, stage.from.line), heredocs: [] });
    return state;
  }

  #variables(state: StageState): Map<string, string> {
    return new Map([...state.arguments.allowed(), ...environmentOf(state.config.Env)]);
  }

  async #step(state: StageState, instruction: DockerfileInstruction): Promise<void> {
    const { name } = instruction;
    if (instruction.heredocs.length > 0)
      throw new GantryError('notImplemented', 'here-documents in the classic builder are not implemented yet');
    if (name === 'workdir') return this.#workdir(state, instruction);
    if (isConfigInstruction(name)) {
      const change = applyConfigInstruction(instruction, {
        config: state.config,
        escape: this.#file.escape,
        variables: this.#variables(state),
        cmdSet: state.cmdSet,
      });
      state.config = change.config;
      state.cmdSet ||= change.setsCmd === true;
      state.maintainer = change.maintainer ?? state.maintainer;
      return this.#commit(state, { comment: ` ${change.comment}` });
    }
    if (name === 'arg') {
      const pairs = this.#argPairs(instruction, this.#variables(state));
      for (const [key, value] of pairs) state.arguments.add(key, value);
      return this.#commit(state, {
        comment: ` ARG ${pairs.map(([key, value]) => (value === undefined ? key : `${key}=${value}`)).join(' ')}`,
      });
    }
    if (name === 'run') return this.#run(state, instruction);
    if (name === 'copy' || name === 'add') return this.#copy(state, instruction);
    throw new GantryError('invalid', `unsupported command type: ${name}`);
  }

  /** The config a step is recorded and found again with. */
  #stepConfig(state: StageState, comment: string): ImageRunConfig {
    return { ...state.config, Image: state.image?.id ?? '', Cmd: [...shellOf(state.config), `#(nop) ${comment}`] };
  }

  /** Uses an earlier result of the same step on the same parent. */
  async #cached(state: StageState, containerConfig: ImageRunConfig): Promise<boolean> {
    if (state.cacheBusted) return false;
    const key = cacheKey(containerConfig);
    const parent = state.image?.id;
    let best: Image | undefined;
    for (const candidate of this.#context.images.list()) {
      if (candidate.parent !== parent) continue;
      const recorded = (candidate.config as { container_config?: ImageRunConfig }).container_config;
      if (recorded === undefined || cacheKey(recorded) !== key) continue;
      if (best === undefined || (candidate.config.created ?? '') > (best.config.created ?? '')) best = candidate;
    }
    if (best === undefined) {
      state.cacheBusted = true;
      return false;
    }
    state.image = best;
    await this.#say(' ---> Using cache\n');
    return true;
  }

  async #commit(state: StageState, step: { comment: string; diffId?: Digest }): Promise<void> {
    const containerConfig = this.#stepConfig(state, step.comment);
    if (step.diffId === undefined && (await this.#cached(state, containerConfig))) return;
    await this.#record(state, { containerConfig, diffId: step.diffId });
  }

  async #record(
    state: StageState,
    step: { containerConfig: ImageRunConfig; diffId: Digest | undefined; container?: string },
  ): Promise<void> {
    state.image = await createChildImage(this.#context.images, {
      parent: state.image,
      diffId: step.diffId,
      config: { ...state.config, Image: state.image?.id ?? '' },
      createdBy: (step.containerConfig.Cmd ?? []).join(' '),
      containerConfig: step.containerConfig,
      ...(state.maintainer === '' ? {} : { author: state.maintainer }),
      ...(step.container === undefined ? {} : { container: step.container }),
    });
  }

  async #layer(state: StageState, pieces: Iterable<TarPiece> | AsyncIterable<TarPiece>): Promise<Digest> {
    const { images, tar } = this.#context;
    const layer = await importLayer(
      writeArchive(tar, pieces),
      { images, tar, hold: this.#hold, parent: state.image?.topLayer },
      this.#signal,
    );
    return layer.diffId;
  }

  async #workdir(state: StageState, instruction: DockerfileInstruction): Promise<void> {
    const change = applyConfigInstruction(instruction, {
      config: state.config,
      escape: this.#file.escape,
      variables: this.#variables(state),
      cmdSet: state.cmdSet,
    });
    state.config = change.config;
    const containerConfig = this.#stepConfig(state, change.comment);
    if (await this.#cached(state, containerConfig)) return;
    const pieces: TarPiece[] = [];
    {
      await using root = await RootView.open(this.#context.images.snapshots, state.image?.topLayer);
      const parts = (await root.resolve(state.config.WorkingDir ?? '/')).split('/').filter((part) => part !== '');
      for (let length = 1; length <= parts.length; length += 1) {
        const path = parts.slice(0, length).join('/');
        const kind = await root.kind(path);
        if (kind === 'other') throw new GantryError('invalid', `cannot mkdir: /${path}: not a directory`);
        if (kind === undefined) pieces.push({ entry: makeEntry(path, 'directory', { modifiedNs: nowNs() }) });
      }
    }
    await this.#record(state, {
      containerConfig,
      diffId: pieces.length === 0 ? undefined : await this.#layer(state, pieces),
    });
  }

  async #run(state: StageState, instruction: DockerfileInstruction): Promise<void> {
    const flag = instruction.flags[0];
    if (flag !== undefined) {
      throw new GantryError(
        'invalid',
        `the --${flag.split('=', 1)[0]} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled`,
      );
    }
    if (state.image === undefined)
      throw new GantryError('invalid', 'Please provide a source image with `from` prior to run');
    const command = commandOf(instruction.rest, state.config);
    const env = state.config.Env ?? [];
    const known = environmentOf(env);
    const given = [...state.arguments.allowed()]
      .filter(([key]) => !known.has(key))
      .map(([key, value]) => `${key}=${value}`);
    const recordedArgs = given.filter((pair) => state.arguments.isRecorded(pair.split('=', 1)[0] ?? '')).sort();
    const saved = given.length > 0 ? [`|${recordedArgs.length}`, ...recordedArgs, ...command] : command;
    const containerConfig = { ...state.config, Image: state.image.id, Cmd: saved, Entrypoint: null };
    if (await this.#cached(state, containerConfig)) return;
    const config: ImageRunConfig = {
      ...state.config,
      Image: state.image.id,
      Cmd: command,
      Entrypoint: [],
      Env: [...env, ...given],
      Healthcheck: { Test: ['NONE'] },
    };
    const container = await this.#context.createContainer({
      image: state.image,
      config,
      resources: this.#options.resources,
    });
    let succeeded = false;
    try {
      await this.#say(` ---> Running in ${shortId(container.id)}\n`);
      const code = await container.run((chunk) => this.#say(chunk.toString('utf8')), this.#signal);
      if (code !== 0)
        throw new BuildStepError(`The command '${command.join(' ')}' returned a non-zero code: ${code}`, code);
      const layer = await commitSnapshot(
        this.#context.images,
        container.snapshotKey,
        { hold: this.#hold },
        this.#signal,
      );
      await this.#record(state, { containerConfig, diffId: layer.diffId, container: container.id });
      succeeded = true;
    } finally {
      if (this.#options.forceRemove || (this.#options.remove && succeeded)) {
        await container.remove();
        await this.#say(` ---> Removed intermediate container ${shortId(container.id)}\n`);
      }
    }
  }

  async #copy(state: StageState, instruction: DockerfileInstruction): Promise<void> {
    const { images, tar } = this.#context;
    const label = instruction.name.toUpperCase();
    const flags = new Map(
      instruction.flags.map((flag) => [flag.split('=', 1)[0] ?? '', flag.slice(flag.indexOf('=') + 1)]),
    );
    for (const flag of flags.keys()) {
      if (flag === 'chown' || (flag === 'from' && instruction.name === 'copy')) continue;
      if (['chmod', 'link', 'parents', 'exclude', 'checksum', 'keep-git-dir', 'unpack'].includes(flag)) {
        throw new GantryError(
          'invalid',
          `the --${flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled`,
        );
      }
      throw parseError(instruction.line, `unknown flag: --${flag}`);
    }
    const words = (parseJsonForm(instruction.rest) ?? splitWords(instruction.rest, this.#file.escape)).map((word) =>
      expandWord(word, this.#file.escape, this.#variables(state)),
    );
    if (words.length < 2)
      throw parseError(
        instruction.line,
        `${label} requires at least two arguments, but only ${words.length === 1 ? 'one was' : 'none were'} provided. Destination could not be determined`,
      );
    const written = words.pop() as string;
    if (words.some((word) => /^https?:\/\//.test(word))) {
      if (instruction.name === 'copy') throw new GantryError('system', "COPY failed: source can't be a URL for COPY");
      throw new GantryError('notImplemented', 'ADD of a URL in the classic builder is not implemented yet');
    }
    await using source = await this.#source(flags.get('from'));
    let sources: Awaited<ReturnType<typeof findSources>>;
    try {
      sources = await findSources(words, source.lookup, !flags.has('from'));
    } catch (error) {
      throw error instanceof GantryError
        ? new GantryError(error.kind, `${label} failed: ${error.message}`, { cause: error })
        : error;
    }
    if (sources.length > 1 && !written.endsWith('/') && written !== '.') {
      throw new GantryError(
        'system',
        `When using ${label} with more than one source file, the destination must be a directory and end with a /`,
      );
    }
    const chown = expandWord(flags.get('chown') ?? '', this.#file.escape, this.#variables(state));
    const comment = `${label} ${chown === '' ? '' : `--chown=${chown} `}${combinedHash(sources)} in ${written} `;
    const containerConfig = this.#stepConfig(state, comment);
    if (await this.#cached(state, containerConfig)) return;
    const joined = joinWorkdir(state.config.WorkingDir ?? '', written);
    const destination = /(\/|^\.|\/\.)$/.test(written) && joined !== '/' ? `${joined}/` : joined;
    let diffId: Digest;
    {
      await using root = await RootView.open(images.snapshots, state.image?.topLayer);
      const owner = chown !== '' ? await resolveOwner(root, chown) : flags.has('from') ? undefined : { uid: 0, gid: 0 };
      diffId = await this.#layer(
        state,
        planCopy({ sources, destination, owner, unpack: instruction.name === 'add' ? tar : undefined }, root),
      );
    }
    await this.#record(state, { containerConfig, diffId });
  }

  /** Where COPY takes files from: the context, or the tree of a stage or image. */
  async #source(from: string | undefined): Promise<{ lookup: CopyLookup } & AsyncDisposable> {
    const { files } = this.#options;
    if (from === undefined) {
      const lookup: CopyLookup = { entries: async (path) => files.under(path), paths: async () => files.paths() };
      return { lookup, [Symbol.asyncDispose]: async () => {} };
    }
    const named = this.#done.find((done) => done.name !== '' && done.name === from.toLowerCase());
    const index = /^\d+$/.test(from) ? Number(from) : -1;
    if (index === this.#done.length)
      throw new GantryError('system', `invalid from flag value ${from}: refers to current build stage`);
    if (index > this.#done.length)
      throw new GantryError('system', `invalid from flag value ${from}: index out of bounds`);
    const image = named?.image ?? this.#done[index]?.image ?? this.#fromImage(from);
    const root = await RootView.open(this.#context.images.snapshots, image.topLayer);
    const lookup: CopyLookup = {
      entries: async (path) => {
        const resolved = await root.resolve(path);
        if ((await root.kind(resolved)) === undefined) return [];
        const found = await root.entries(resolved);
        // The asked-for name stays, even where it was a link.
        return found.map((item) => ({
          ...item,
          entry: { ...item.entry, path: cleanRelative(`${path}/${item.entry.path.slice(resolved.length)}`) },
        }));
      },
      paths: async () => (await root.entries('')).map((item) => item.entry.path),
    };
    return { lookup, [Symbol.asyncDispose]: () => root[Symbol.asyncDispose]() };
  }

  #fromImage(from: string): Image {
    try {
      return this.#context.images.resolve(from);
    } catch (error) {
      throw error instanceof GantryError
        ? new GantryError(error.kind, `invalid from flag value ${from}: ${error.message}`, { cause: error })
        : error;
    }
  }
}

/** What must be equal for a step to be the same. */
function cacheKey(config: ImageRunConfig): string {
  const { Hostname: _hostname, Domainname: _domainname, Image: _image, ...rest } = orderRunConfig(config);
  const empty = (value: unknown): boolean =>
    value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);
  return goJson(Object.fromEntries(Object.entries(rest).filter(([, value]) => !empty(value))));
}
