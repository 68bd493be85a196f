// Flows of Crosspoint integrations in JavaScript. The protocol is crosspoint/1: the framed binding where the supervisor
// speaks it, else the plain one, and without a supervisor everything is in the folder `.crosspoint`.

export { Cancelled, ConfigInvalid, CredentialsRefused, Failed, InputInvalid, Later, Never, Refused } from "./errors.js";
export { Answer, Connection } from "./http.js";
export { main, start } from "./main.js";
export { Run } from "./run.js";
