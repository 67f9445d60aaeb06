// The viewer of `pleura serve`.
import { serverSource } from "./server_source.js";
import { start } from "./viewer.js";

start(serverSource(new URL("./", document.baseURI)));
