/** Shapes of the messages of the transfer service, as schema.ts decodes them, and their types' names. */
import type { Platform } from '../../images/documents.js';
import type { StringMap } from '../../model/records.js';
import type { AnyMessage } from '../messages/messages.js';
import type { ImageReference } from './image-names.js';

export const types = {
  imageStore: 'containerd.types.transfer.ImageStore',
  importStream: 'containerd.types.transfer.ImageImportStream',
  exportStream: 'containerd.types.transfer.ImageExportStream',
  progress: 'containerd.types.transfer.Progress',
} as const;

export interface TransferRequest {
  source: AnyMessage | null;
  destination: AnyMessage | null;
  options: { progressStream: string } | null;
}
export interface PlatformMessage {
  os: string;
  architecture: string;
  variant: string;
}
export interface UnpackMessage {
  platform: PlatformMessage | null;
  snapshotter: string;
}
export interface ImageStoreMessage {
  name: string;
  labels: StringMap;
  extraReferences: ImageReference[];
  unpacks: UnpackMessage[];
}
export interface ImportStreamMessage {
  stream: string;
  forceCompress: boolean;
}
export interface ExportStreamMessage {
  stream: string;
  platforms: PlatformMessage[];
  allPlatforms: boolean;
  skipCompatibilityManifest: boolean;
  skipNonDistributable: boolean;
}

export const platformOf = ({ os, architecture, variant }: PlatformMessage): Platform => ({
  os,
  architecture,
  ...(variant !== '' && { variant }),
});
