/** Anything that JSON can say. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export type Level = "debug" | "info" | "warn" | "error";
export type CancelReason = "deadline" | "cancelled" | "draining" | "lease-lost";
export type Fields = Record<string, unknown>;

export interface FailedOptions {
  /** A word of the script's own for the kind of failure. */
  code?: string;
  /** Milliseconds before which another attempt is of no use. */
  afterMs?: number;
  cause?: unknown;
}

/** The run failed. Another attempt is made as the flow's policy says. */
export class Failed extends Error {
  constructor(message: string, options?: FailedOptions);
  readonly code: string;
  readonly exitCode: number;
  readonly retryable: boolean | undefined;
  readonly afterMs: number | undefined;
}
/** It failed for now. */
export class Later extends Failed {}
/** Another attempt would fail in the same way. */
export class Never extends Failed {}
/** The input is wrong. */
export class InputInvalid extends Never {}
/** The configuration is wrong. */
export class ConfigInvalid extends Never {}
/** The provider refused the credentials: a person has to connect it again. */
export class CredentialsRefused extends Never {}
/** The supervisor did not take over a state. */
export class Refused extends Error {
  readonly code: string;
}
/** The run was told to stop. */
export class Cancelled extends Error {
  constructor(reason: CancelReason);
  readonly reason: CancelReason;
}

export interface RequestOptions {
  query?: Record<string, string | number | boolean | (string | number | boolean)[]>;
  /** Sent as `application/json`. */
  json?: unknown;
  body?: BodyInit;
  headers?: HeadersInit;
  /** Names what the request does: the provider gets the same idempotency key for it in every attempt. */
  effect?: string;
  /** 60,000 unless given. */
  timeoutMs?: number;
}

/** An answer, of any status. */
export class Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
  /** Whether the status is below 400. */
  readonly ok: boolean;
  readonly text: string;
  json(): any;
  /** The code of the supervisor's own error, if it and not the provider has answered. */
  readonly refusedBy: string | undefined;
  /** Answers itself, or throws what the status means for the run. */
  check(): this;
}

/** One of the integration's connections. The shortcuts throw if the status is 400 or above; `request` does not. */
export class Connection {
  constructor(base: string, headers?: Record<string, string>, socket?: string);
  request(method: string, path: string, options?: RequestOptions): Promise<Answer>;
  get(path: string, options?: RequestOptions): Promise<Answer>;
  post(path: string, options?: RequestOptions): Promise<Answer>;
  put(path: string, options?: RequestOptions): Promise<Answer>;
  patch(path: string, options?: RequestOptions): Promise<Answer>;
  delete(path: string, options?: RequestOptions): Promise<Answer>;
}

/** What is known of this run, and what it may say. */
export class Run<Config = any, Input = any, State = any> {
  private constructor();
  readonly binding: "framed" | "http" | "plain" | "local";
  readonly mode: "normal" | "init";
  readonly config: Config;
  readonly input: Input;
  /** CloudEvents 1.0. */
  readonly triggers: Record<string, any>[];
  readonly secrets: Record<string, string>;
  state: State | null;
  /** The same in every attempt. */
  readonly runKey: string;
  readonly execution: string;
  /** From 1. */
  readonly attempt: number;
  readonly customer: string | undefined;
  readonly installation: string | undefined;
  readonly integration: string | undefined;
  readonly flow: string | undefined;
  readonly trigger: string;
  readonly deadline: Date | undefined;

  log(level: Level, message: string, fields?: Fields, options?: { customer?: boolean }): void;
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** A sentence for the customer's people. */
  tell(message: string): void;
  metric(name: string, value?: number, kind?: "counter" | "gauge"): void;
  progress(done?: number, total?: number, message?: string): void;

  /** Remembers a new state whole. Resolves with true as soon as it is durable, with false where it will be with the run's success. */
  checkpoint(value: State, options?: { timeoutMs?: number }): Promise<boolean>;
  /** Remembers new values of some fields of the state. */
  patch(fields: Partial<State>, options?: { timeoutMs?: number }): Promise<boolean>;

  readonly cancelled: boolean;
  readonly cancelReason: CancelReason | undefined;
  /** Throws `Cancelled` if the run was told to stop. */
  check(): void;
  onCancel(callback: (reason: CancelReason) => void): void;
  /** Milliseconds until the run is killed. */
  remainingMs(): number;

  connection(slot: string): Connection;
  /** A UUID for an effect of this run, the same in every attempt. */
  effectKey(name: string): string;
}

/** The choices of a configuration's fields, by field. */
export type Choices = Record<string, { value: string; label: string }[]>;

/** Does the work of one run and ends the process with the exit code that says what became of it. */
export function main<Config = any, Input = any, State = any>(
  work: (run: Run<Config, Input, State>) => unknown,
  options?: { init?: (run: Run<Config, Input, State>) => Choices | Promise<Choices>; prefix?: string },
): Promise<never>;

/** Begins the run without `main`; the script ends by itself. */
export function start(options?: { prefix?: string }): Promise<Run>;
