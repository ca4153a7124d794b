/** What the builder needs of a container for RUN; the container engine supplies it. */
import type { Image, ImageRunConfig } from '#services/images/contract.ts';

/** Receives what a RUN writes. */
export type RunOutput = (chunk: Buffer, stream: 'stdout' | 'stderr') => Promise<void> | void;

/** A container that one RUN uses. */
export interface BuildContainer {
  readonly id: string;
  readonly snapshotKey: string;
  /** Runs to the end; resolves to the exit code. */
  run(output: RunOutput, signal?: AbortSignal): Promise<number>;
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
