// The page that needs no server: the viewer with cases of its own. What it holds is `pleura` to a reader of its console.

import { start } from "../../serve/web/viewer.js";
import { localSource } from "./local_source.js";

const text = name => document.getElementById(`pleura-${name}`).textContent;
globalThis.pleura = start(localSource({ page: JSON.parse(text("page")), text }));
