/**
 * The classic builder: a Dockerfile's stages run in order, each instruction becomes an image, and an image
 * whose parent and step are the same as before is used again. Its progress text is docker's.
 */
import { readDockerfile } from '#services/build/check.ts';
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
  parseError,
  parseJsonForm,
  readInstruction,
  splitWords,
} from '#services/build/dockerfile.ts';
import { expandWord } from '#services/build/expand.ts';
import type { Image, ImageRunConfig } from '#services/images/contract.ts';
import type { ImageStore, LayerHold } from '#services/images/store.ts';
import { type TarCodec, type TarPiece, writeArchive } from '#services/images/tar-codec.ts';
import { nowNs } from '#system/clock/clock.ts';
import { makeEntry } from '#system/tar/entry.ts';
import type { Digest } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import { newId, shortId } from '#types/ids.ts';
import type { Platform } from '#types/platform.ts';
import { familiarString, type Reference } from '#types/reference.ts';
import { createChildImage } from '../images/commit.ts';
import { commitSnapshot, importLayer } from '../images/layer.ts';
import type { WriteProgress } from '../images/progress.ts';
import { type EmitEvent, imageAttributes } from '../images/remove.ts';
import { squashBuild } from '../images/squash.ts';
import { nameImage } from '../images/tag.ts';
import { BuildArguments } from './arguments.ts';
import { baseImage, type PullBase } from './base-image.ts';
import type { BuildResources, CreateBuildContainer } from './build-container.ts';
import type { SourceTree } from './context.ts';
import { combinedHash, findSources, planCopy } from './copy.ts';
import { openCopySource } from './copy-source.ts';
import { RootView, resolveOwner } from './rootfs.ts';
import { checkPlatform, type Stage, splitStages, stagesUpTo } from './stages.ts';
import { findCachedStep } from './step-cache.ts';
import { BuildStepError } from './step-error.ts';

export interface BuildContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
  readonly createContainer: CreateBuildContainer;
  readonly pull: PullBase;
  readonly write: WriteProgress;
}

export interface BuildOptions {
  readonly dockerfile: string;
  /** Its path in the context, for messages. */
  readonly dockerfileName: string;
  readonly files: SourceTree;
  readonly tags: readonly Reference[];
  readonly arguments: Readonly<Record<string, string | null>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly target: string;
  readonly noCache: boolean;
  /** Ask registries for newer base images even if some are here. */
  readonly pull: boolean;
  readonly remove: boolean;
  readonly forceRemove: boolean;
  readonly quiet: boolean;
  /** Merge the layers made here into one. */
  readonly squash: boolean;
  readonly platform?: Platform;
  readonly resources: BuildResources;
}

interface StageState {
  readonly name: string;
  readonly base: Image | undefined;
  image: Image | undefined;
  config: ImageRunConfig;
  cmdSet: boolean;
  maintainer: string;
  cacheBusted: boolean;
  readonly arguments: BuildArguments;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Characters of a quiet build's text kept for its failure. */
const QUIET_OUTPUT_LIMIT = 16 * 1024 * 1024;

/** Compat: stderr comes in red, each piece for itself. */
const red = (text: string): string => `\x1b[91m${text}\x1b[0m`;

/** Builds and tags; returns the image. */
export async function buildImage(context: BuildContext, options: BuildOptions, signal?: AbortSignal): Promise<Image> {
  const file = readDockerfile(options.dockerfile, options.dockerfileName);
  using hold = context.images.hold();
  const builder = new Builder(context, options, { file, hold, signal });
  let image: Image;
  try {
    image = await builder.build();
    if (options.squash) image = await squashBuild(context, { image, base: builder.lastBase }, signal);
  } catch (error) {
    // Compat: a quiet build that fails tells its steps after all.
    for (const text of builder.kept) await context.write({ stream: text });
    throw error;
  }
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

class Builder {
  readonly #context: BuildContext;
  readonly #options: BuildOptions;
  readonly #file: Dockerfile;
  readonly #hold: LayerHold;
  readonly #signal: AbortSignal | undefined;
  readonly #done: StageState[] = [];
  /** What a quiet build did not say. */
  readonly kept: string[] = [];
  #keptLength = 0;
  /** What the last stage began from; undefined: from nothing. */
  lastBase: Image | undefined;

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
    if (!this.#options.quiet) return void (await this.#context.write({ stream: text }));
    this.#keptLength += text.length;
    if (this.#keptLength <= QUIET_OUTPUT_LIMIT) this.kept.push(text);
  }

  async build(): Promise<Image> {
    const { globals, stages: all } = splitStages(this.#file);
    const stages = stagesUpTo(all, this.#options.target);
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
    for (const warning of this.#file.warnings) await this.#say(red(`${warning}\n`));
    const args = new BuildArguments(this.#options.arguments);
    for (const global of globals) {
      await announce(global.original);
      for (const [key, value] of this.#argPairs(global, args.meta())) args.addMeta(key, value);
    }
    for (const stage of stages) {
      await announce(stage.from.original);
      const state = await this.#begin(stage, args);
      this.lastBase = state.base;
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
      checkPlatform(expandWord(flag.slice('platform='.length), this.#file.escape, args.meta()));
    const earlier = this.#done.find((done) => done.name !== '' && done.name === base.toLowerCase());
    const image =
      base === 'scratch'
        ? undefined
        : (earlier?.image ?? (await baseImage(this.#context, this.#options, base, this.#signal)));
    const { Image: _image, ...inherited } = image?.config.config ?? {};
    const env = [...(inherited.Env ?? [])];
    if (!environmentOf(env).has('PATH')) env.push(`PATH=${DEFAULT_PATH}`);
    const triggers = inherited.OnBuild ?? [];
    const config = { ...inherited, Env: env, OnBuild: null, OpenStdin: false, StdinOnce: false };
    const state: StageState = {
      name: stage.name,
      base: image,
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
    const best = findCachedStep(this.#context.images, state.image, containerConfig);
    if (best === undefined) {
      state.cacheBusted = true;
      return false;
    }
    state.image = best;
    await this.#say(' ---> Using cache\n');
    return true;
  }

  async #commit(state: StageState, step: { comment: string }): Promise<void> {
    const containerConfig = this.#stepConfig(state, step.comment);
    if (await this.#cached(state, containerConfig)) return;
    await this.#inName(() => this.#record(state, { containerConfig, diffId: undefined }));
  }

  /** Compat: docker makes a container for every such step and tells so; here none is needed, only its lines. */
  async #inName(work: () => Promise<void>): Promise<void> {
    const id = shortId(newId());
    await this.#say(` ---> Running in ${id}\n`);
    await work();
    if (this.#options.remove || this.#options.forceRemove)
      await this.#say(` ---> Removed intermediate container ${id}\n`);
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
    await this.#inName(() => this.#makeWorkdir(state, containerConfig));
  }

  async #makeWorkdir(state: StageState, containerConfig: ImageRunConfig): Promise<void> {
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
      const code = await container.run((chunk, stream) => {
        const text = chunk.toString('utf8');
        return this.#say(stream === 'stderr' ? red(text) : text);
      }, this.#signal);
      if (code !== 0)
        throw new BuildStepError(`The command '${command.join(' ')}' returned a non-zero code: ${code}`, code);
      const layer = await commitSnapshot(
        this.#context.images,
        container.snapshotKey,
        { hold: this.#hold },
        this.#signal,
      );
      await this.#record(state, { containerConfig, diffId: layer?.diffId, container: container.id });
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
      if (['chmod', 'parents', 'exclude', 'unpack'].includes(flag)) {
        throw new GantryError(
          'invalid',
          `the --${flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled`,
        );
      }
    }
    const words = (parseJsonForm(instruction.rest) ?? splitWords(instruction.rest, this.#file.escape)).map((word) =>
      expandWord(word, this.#file.escape, this.#variables(state)),
    );
    const written = words.pop() as string;
    if (words.some((word) => /^https?:\/\//.test(word))) {
      if (instruction.name === 'copy') throw new GantryError('system', "COPY failed: source can't be a URL for COPY");
      throw new GantryError('notImplemented', 'ADD of a URL in the classic builder is not implemented yet');
    }
    await using source = await openCopySource(flags.get('from'), {
      files: this.#options.files,
      images,
      done: this.#done,
      resolve: (name) => baseImage(this.#context, this.#options, name, this.#signal),
    });
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
}
