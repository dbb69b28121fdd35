/**
 * Why is an object kept: the shortest way from a root to it, or from each root; or that nothing keeps it, and when it
 * goes. Called by db.ts; reads only. Writers go on meanwhile: the answer is of one moment of the call.
 */
import type { Engine, Key, Value } from '../engine/contract.js';
import { collectionOf, namespaceOf, Relation } from '../engine/schema/keys.js';
import { notFound } from '../errors.js';
import { Label } from '../model/labels.js';
import { type Instant, now } from '../model/time.js';
import type { CollectHost } from './collect.js';
import { type ExtraEdges, extraEdgesOf, type InTurn } from './extra-edges.js';
import { describeKey, findObject, type ObjectName } from './objects.js';
import { END_OF_WAY, GraphView, idOfState, NO_WAY, plainState } from './reach.js';
import { labelsOf, metadataIndexer } from './references.js';
