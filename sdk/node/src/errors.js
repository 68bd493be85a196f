// How a script says what became of it, and whether another attempt is worth it.

/** The run failed. Another attempt is made as the flow's policy says. */
export class Failed extends Error {
  static code = "failed";
  static exitCode = 1;
  static retryable = undefined;

  constructor(message, { code, afterMs, cause } = {}) {
    super(message, { cause });
    this.name = new.target.name;
    this.code = code ?? new.target.code;
    this.exitCode = new.target.exitCode;
    this.retryable = new.target.retryable;
    this.afterMs = afterMs;
  }
}

/** It failed for now. */
export class Later extends Failed {
  static code = "later";
  static exitCode = 75;
  static retryable = true;
}

/** Another attempt would fail in the same way. */
export class Never extends Failed {
  static code = "never";
  static exitCode = 65;
  static retryable = false;
}

/** The input is wrong. */
export class InputInvalid extends Never {
  static code = "input-invalid";
}

/** The configuration is wrong. */
export class ConfigInvalid extends Never {
  static code = "config-invalid";
  static exitCode = 78;
}

/** The provider refused the credentials: a person has to connect it again. */
export class CredentialsRefused extends Never {
  static code = "credentials-refused";
  static exitCode = 77;
}

/** The supervisor did not take over a state. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.name = "Refused";
    this.code = code;
  }
}

/** The run was told to stop. */
export class Cancelled extends Error {
  constructor(reason) {
    super(`the run was told to stop: ${reason}`);
    this.name = "Cancelled";
    this.reason = reason;
  }
}
