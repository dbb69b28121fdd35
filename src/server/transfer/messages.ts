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
  registry: 'containerd.types.transfer.OCIRegistry',
  authRequest: 'containerd.types.transfer.AuthRequest',
  authResponse: 'containerd.types.transfer.AuthResponse',
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
  platforms: PlatformMessage[];
  allMetadata: boolean;
  manifestLimit: number;
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

export interface RegistryMessage {
  reference: string;
  resolver: {
    authStream: string;
    headers: StringMap;
    hostDir: string;
    defaultScheme: string;
    httpDebug: number;
    logsStream: string;
  } | null;
}
export const AuthType = { credentials: 1, refresh: 2, header: 3 } as const;
export interface AuthResponseMessage {
  authType: number;
  secret: string;
  username: string;
}

export const platformOf = ({ os, architecture, variant }: PlatformMessage): Platform => ({
  os,
  architecture,
  ...(variant !== '' && { variant }),
});
