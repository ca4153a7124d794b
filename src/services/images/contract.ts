/**
 * Images: a config (its digest is the image ID, as with docker's graph-driver store), the layers it names,
 * and references (tags and digests) pointing at it. Bytes of configs, manifests and layers lie in the content
 * store exactly as they came; extracted layers are snapshots.
 */
import type { Digest } from '#types/digest.ts';

/** OCI image config as stored (image-spec config.md) plus docker's extra fields. */
export interface ImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string;
  readonly 'os.version'?: string;
  readonly created?: string;
  readonly author?: string;
  readonly comment?: string;
  readonly parent?: string;
  readonly container?: string;
  readonly docker_version?: string;
  readonly config?: ImageRunConfig;
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly Digest[] };
  readonly history?: readonly ImageHistoryEntry[];
}

/** The run-time part; docker's ContainerConfig with Go field names. */
export interface ImageRunConfig {
  readonly User?: string;
  readonly ExposedPorts?: Readonly<Record<string, object>> | null;
  readonly Env?: readonly string[] | null;
  readonly Entrypoint?: readonly string[] | null;
  readonly Cmd?: readonly string[] | null;
  readonly Volumes?: Readonly<Record<string, object>> | null;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly StopSignal?: string;
  readonly StopTimeout?: number;
  readonly Shell?: readonly string[] | null;
  readonly ArgsEscaped?: boolean;
  readonly OnBuild?: readonly string[] | null;
  readonly Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    StartInterval?: number;
    Retries?: number;
  };
  readonly [field: string]: unknown;
}

export interface ImageHistoryEntry {
  readonly created?: string;
  readonly created_by?: string;
  readonly author?: string;
  readonly comment?: string;
  readonly empty_layer?: boolean;
}

export interface Image {
  readonly id: Digest;
  readonly config: ImageConfig;
  /** ChainID of the top layer; undefined for an image without layers. */
  readonly topLayer: Digest | undefined;
  readonly parent: Digest | undefined;
  /** Familiar references, `busybox:latest`. */
  readonly repoTags: readonly string[];
  /** `busybox@sha256:…`. */
  readonly repoDigests: readonly string[];
  readonly sizeBytes: number;
  /** When it was last tagged, RFC 3339; zero time if never. */
  readonly lastTagTime: string;
}

export interface Images {
  /** By reference, ID, or ID prefix; throws `notFound`: `No such image: {ref}` (tag added when missing). */
  resolve(reference: string): Image;
  get(id: Digest): Image | undefined;
  list(): Image[];
  /**
   * Registers an image whose layers are all present as snapshots; returns its ID.
   * `configBytes` are stored verbatim. Tags are optional.
   */
  create(configBytes: Buffer, options: { tags?: readonly string[]; parent?: Digest }): Promise<Image>;
  tag(image: Digest, repository: string, tag: string): void;
}
